"""What lists must do on every store, as tests to inherit: give the class a fixture `database`."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.errors import InvalidError
from openqrm.domain.event import Event, Severity
from openqrm.domain.operation import Operation
from openqrm.domain.resource import Phase, Resource
from openqrm.store.lists import Filter, ListQuery, Page, list_records

if TYPE_CHECKING:
    from openqrm.domain.model import R

COUNT = 23
FILTERS: list[tuple[list[tuple[str, str, Any]], dict[str, Any]]] = [
    ([("cpus", "eq", "2")], {"cpus": 2}),
    ([("cpus", "ne", 2)], {"cpus__ne": 2}),
    ([("cpus", "lt", "2")], {"cpus__lt": 2}),
    ([("cpus", "gt", "0"), ("cpus", "le", "2")], {"cpus__gt": 0, "cpus__le": 2}),
    ([("cpus", "in", "1,3")], {"cpus__in": [1, 3]}),
    ([("phase", "in", ["idle", "off"])], {"phase__in": ["idle", "off"]}),
    ([("manual", "eq", "true")], {"manual": True}),
    ([("name", "ge", "node-010")], {"name__ge": "node-010"}),
    ([("group", "eq", "Größe")], {"group": "Größe"}),
    ([("group", "null", "false")], {}),
    ([("id", "in", "1,2,99")], {"id__in": [1, 2]}),
]
SEARCHES: list[tuple[str, list[str] | int]] = [
    ("node-007", ["node-007"]),
    ("NODE-007", ["node-007"]),
    ("007", ["node-007"]),
    ("node", COUNT),
    ("52:54:00:00:00:16", ["node-016"]),
    ("00:16", ["node-016"]),
    ("10.0.22.1", ["node-016"]),
    ("node 22.1", ["node-016"]),
    ("-007", ["node-007"]),
    ("nowhere", []),
    ("node nowhere", []),
    ("%", COUNT),
    ("", COUNT),
    ("a\x00b", []),
]
MISTAKES = [
    (ListQuery(limit=0), "limit"),
    (ListQuery(limit=501), "limit"),
    (ListQuery(sort="swap_mb"), "sort"),
    (ListQuery(sort="--id"), "sort"),
    (ListQuery(sort="nonsense"), "sort"),
    (ListQuery(search="x" * 1001), "search"),
    (ListQuery((Filter("swap_mb", "eq", "1"),)), "swap_mb"),
    (ListQuery((Filter("cpus", "like", "1"),)), "cpus"),
    (ListQuery((Filter("cpus", "eq", "many"),)), "cpus"),
    (ListQuery((Filter("cpus", "eq", None),)), "cpus"),
    (ListQuery((Filter("cpus", "eq", str(10**30)),)), "cpus"),
    (ListQuery((Filter("phase", "eq", "nonsense"),)), "phase"),
    (ListQuery((Filter("manual", "eq", "perhaps"),)), "manual"),
    (ListQuery((Filter("name", "eq", "a\x00"),)), "name"),
    (ListQuery((Filter("id", "in", ",".join(["1"] * 501)),)), "id"),
]


def pages(database: Any, record: type[R], **query: Any) -> list[Page[R]]:
    """All pages of a list, one after the other."""
    found: list[Page[R]] = []
    cursor = None
    while True:
        with database.read() as reader:
            page = list_records(reader, record, ListQuery(**query, cursor=cursor))
        found.append(page)
        cursor = page.next_cursor
        if cursor is None:
            return found


def names(found: list[Page[Resource]]) -> list[str]:
    """The names on all pages."""
    return [record.name for page in found for record in page.records]


class SearchSuite:
    """Search, and the records it looks in."""

    @pytest.fixture
    def filled(self, database: Any) -> Any:
        """Resources that differ in what lists look at."""
        phases = list(Phase)
        with database.write() as writer:
            for number in range(COUNT):
                writer.insert(
                    Resource(
                        name=f"node-{(number * 7) % COUNT:03}",
                        mac=f"52:54:00:00:00:{number:02x}",
                        address=f"10.0.{number}.1" if number % 3 else None,
                        phase=phases[number % len(phases)],
                        cpus=number % 4,
                        manual=number % 2 == 0,
                        group="Größe" if number == 5 else "",
                    )
                )
            for number in range(10):
                writer.insert(Operation(name="x.y", target_id=number // 2 if number % 3 else None))
        return database

    def test_search(self, filled: Any) -> None:
        for search, expected in SEARCHES:
            found = names(pages(filled, Resource, search=search, limit=7))
            assert len(found) == expected if isinstance(expected, int) else found == expected, search

    def test_search_follows_changes(self, filled: Any) -> None:
        with filled.write() as writer:
            record = writer.one(Resource, name="node-007")
            writer.update(record, name="other")
            gone = writer.one(Resource, name="node-008")
            writer.delete(Resource, gone.id)
            writer.event("The disk is FULL on node-7", severity=Severity.ERROR, source="test")
        assert names(pages(filled, Resource, search="node-007")) == []
        assert names(pages(filled, Resource, search="node-008")) == []
        assert names(pages(filled, Resource, search="other")) == ["other"]
        assert pages(filled, Event, search="disk full")[0].total == 1


class ListsSuite(SearchSuite):
    """Paging, filters, search, and what is refused."""

    def test_pages_are_the_whole_list_in_order(self, filled: Any) -> None:
        for sort in ("id", "-id", "name", "-name", "cpus", "-cpus", "manual", "-phase"):
            for limit in (1, 4, 5, COUNT - 1, COUNT, 500):
                self._whole_list(filled, sort, limit)

    def _whole_list(self, filled: Any, sort: str, limit: int) -> None:
        found = pages(filled, Resource, sort=sort, limit=limit)
        with filled.read() as reader:
            expected = [record.name for record in reader.find(Resource, order=sort)]
        assert names(found) == expected
        assert all(page.total == COUNT and not page.capped for page in found)
        assert all(len(page.records) == limit for page in found[:-1])

    def test_empty_fields_are_paged_too(self, filled: Any) -> None:
        for sort in ("target_id", "-target_id"):
            with filled.read() as reader:
                expected = [record.id for record in reader.find(Operation, order=sort)]
            for limit in (1, 3, 10):
                found = pages(filled, Operation, sort=sort, limit=limit)
                assert [record.id for page in found for record in page.records] == expected, (sort, limit)

    def test_times_are_paged(self, database: Any) -> None:
        start = datetime(2026, 1, 1, tzinfo=UTC)
        with database.write() as writer:
            for number in range(5):
                writer.event(str(number), severity=Severity.INFO, source="test")
        with database.read() as reader:
            assert list_records(reader, Event, ListQuery(sort="-id", limit=2)).records[0].text == "4"
            recent = Filter("id", "gt", "3")
            assert [one.text for one in list_records(reader, Event, ListQuery((recent,))).records] == ["3", "4"]
            assert reader.now > start + timedelta(0)

    def test_a_record_that_goes_shifts_nothing(self, filled: Any) -> None:
        with filled.read() as reader:
            first = list_records(reader, Resource, ListQuery(sort="name", limit=5))
        with filled.write() as writer:
            writer.delete(Resource, first.records[-1].id)
            writer.insert(Resource(name="aaa"))
        with filled.read() as reader:
            second = list_records(reader, Resource, ListQuery(sort="name", limit=5, cursor=first.next_cursor))
        assert second.records[0].name == "node-005"

    def test_filters(self, filled: Any) -> None:
        for filters, conditions in FILTERS:
            with filled.read() as reader:
                expected = [record.name for record in reader.find(Resource, **conditions)]
            found = pages(filled, Resource, filters=tuple(Filter(*one) for one in filters), limit=3)
            assert names(found) == expected, filters
            assert found[0].total == len(expected) > 0

    def test_mistakes_name_their_field(self, filled: Any) -> None:
        for query, field in MISTAKES:
            with filled.read() as reader, pytest.raises(InvalidError) as refused:
                list_records(reader, Resource, query)
            assert refused.value.field == field, query

    def test_cursors_of_other_lists_are_refused(self, filled: Any) -> None:
        with filled.read() as reader:
            good = list_records(reader, Resource, ListQuery(sort="name", limit=5)).next_cursor
        assert good is not None
        mark, value, _record_id = json.loads(base64.urlsafe_b64decode(good + "=="))
        forged = [[mark, value, "x"], [mark, None, 1], [mark, {"a": 1}, 1], [mark, value, 10**30], [mark], {}, 7]
        texts = [base64.urlsafe_b64encode(json.dumps(one).encode()).decode() for one in forged]
        with filled.read() as reader:
            for text in [*texts, "nonsense", "é", "=", "x" * 20_000, good + "A"]:
                with pytest.raises(InvalidError) as refused:
                    list_records(reader, Resource, ListQuery(sort="name", limit=5, cursor=text))
                assert refused.value.field == "cursor", text
            for other in (ListQuery(sort="-name", cursor=good), ListQuery(search="x", sort="name", cursor=good)):
                with pytest.raises(InvalidError):
                    list_records(reader, Resource, other)
