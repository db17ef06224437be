"""Lists on the three databases, and what they cost on the real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from openqrm.domain.resource import Resource
from openqrm.store import clauses
from openqrm.store.lists import ListQuery, list_records
from openqrm.testing.lists_suite import ListsSuite, SearchSuite

if TYPE_CHECKING:
    from openqrm.store.database import SqlDatabase


class TestLists(ListsSuite):
    """On memory, SQLite and PostgreSQL, by the fixture `database`."""


class TestListsOfManyHits(SearchSuite):
    """The same with the other way of searching, which is taken when a term has many hits."""

    @pytest.fixture(autouse=True)
    def _broad(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(clauses, "NARROW", 0)


def statements(database: SqlDatabase, query: ListQuery) -> list[str]:
    """The statements one list takes."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    with database.read() as reader:
        event.listen(reader.connection, "before_cursor_execute", note)
        list_records(reader, Resource, query)
        event.remove(reader.connection, "before_cursor_execute", note)
    return seen


def test_the_number_of_queries_does_not_grow(sql_database: SqlDatabase) -> None:
    counts = []
    for start, end in ((0, 10), (10, 300)):
        with sql_database.write() as writer:
            for number in range(start, end):
                writer.insert(Resource(name=f"node-{number}"))
        counts.append([len(statements(sql_database, ListQuery(limit=200, search=text))) for text in ("", "node")])
    assert counts == [[2, 3], [2, 3]]


def test_the_total_is_capped(sql_database: SqlDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clauses, "COUNT_CAP", 5)
    with sql_database.write() as writer:
        for number in range(7):
            writer.insert(Resource(name=f"node-{number}"))
    with sql_database.read() as reader:
        page = list_records(reader, Resource, ListQuery(limit=1))
    assert (page.total, page.capped) == (5, True)
