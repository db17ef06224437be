"""What the declarations become in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from openqrm.domain.entities import ENTITIES
from openqrm.store.clauses import sorting
from openqrm.store.lists import sortable
from openqrm.store.tables import Schema
from openqrm.testing.database import open_database

if TYPE_CHECKING:
    from openqrm.domain.model import Record
    from openqrm.store.database import SqlDatabase
    from openqrm.testing.database import SqliteFiles


@pytest.fixture(scope="module")
def schema() -> Schema:
    return Schema(ENTITIES)


@pytest.mark.parametrize("record", ENTITIES.values(), ids=ENTITIES)
def test_names_fit_every_database(schema: Schema, record: type[Record]) -> None:
    table = schema[record].table
    names = [
        table.name,
        *table.c.keys(),
        *(one.name for one in table.indexes),
        *(one.name for one in table.constraints),
    ]
    assert all(len(str(name)) <= 63 for name in names)


@pytest.mark.parametrize("record", ENTITIES.values(), ids=ENTITIES)
def test_what_lists_offer_is_sorted_by_an_index(sqlite_files: SqliteFiles, record: type[Record]) -> None:

    database: SqlDatabase = open_database(sqlite_files.fresh())
    projection = database.schema[record]
    with database.read() as reader:
        for field in sortable(record):
            for descending in (False, True):
                order = sorting(projection, field, descending)
                statement = select(projection.table).order_by(*order).limit(51)
                query = str(statement.compile(reader.connection, compile_kwargs={"literal_binds": True}))
                plan = " ".join(
                    str(row[-1]) for row in reader.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")
                )
                assert "TEMP B-TREE" not in plan, f"{record.entity.name}.{field}: {plan}"
    database.close()


def test_every_reference_can_be_checked_by_an_index(schema: Schema) -> None:
    for projection in schema.projections.values():
        leading = {next(iter(index.columns)).name for index in projection.table.indexes}
        leading |= {fields[0] for fields in projection.unique}
        assert set(projection.refs) <= leading, projection.table.name
