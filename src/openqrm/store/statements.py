"""The statements of every day, built once per table: building one costs more than running it on SQLite."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, select, update

if TYPE_CHECKING:
    from sqlalchemy import Executable

    from openqrm.store.tables import Projection

KEY = "the_id"
"""The parameter that carries the id of the row."""

FORGET_WORDS = "DELETE FROM search_words WHERE entity = {0} AND record_id = {0}"
REMEMBER_WORDS = {
    "sqlite": "INSERT INTO search_words (entity, record_id, word) SELECT ?, ?, value FROM json_each(?)",
    "postgresql": "INSERT INTO search_words (entity, record_id, word) SELECT %s, %s, unnest(%s::text[])",
}
MARKS = {"sqlite": "?", "postgresql": "%s"}


@cache
def getting(projection: Projection) -> Executable:
    """One row by its id."""
    table = projection.table
    return select(table).where(table.c.id == bindparam(KEY))


@cache
def inserting(projection: Projection) -> Any:
    """A row, and back as stored. Without an `id` among the values the database gives one."""
    return insert(projection.table).returning(*projection.table.c)


@cache
def updating(projection: Projection, fields: tuple[str, ...]) -> Any:
    """These fields of one row, and back as stored."""
    table = projection.table
    changed: dict[str, Any] = {field: bindparam(field) for field in fields}
    return update(table).where(table.c.id == bindparam(KEY)).values(changed).returning(*table.c)
