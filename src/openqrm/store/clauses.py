"""Conditions, order and pages as SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, literal, or_, select, tuple_

from openqrm.store.lists import COUNT_CAP, Checked, Page, finish
from openqrm.store.words import bounds, terms

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.sql.elements import ColumnElement

    from openqrm.domain.model import R
    from openqrm.store.codec import Condition
    from openqrm.store.records import SqlReader
    from openqrm.store.tables import Projection, Schema

SEARCH_CAP = 1_000
"""The total of a search with many hits is counted up to here only."""
NARROW = 2_000
"""Up to so many hits of a search term, the records are fetched by the hits; above, the hits by the records."""


def clause(projection: Projection, condition: Condition) -> ColumnElement[bool]:
    """A condition as SQL. `ne` holds for empty fields too, as in Python."""
    column = projection.table.c[condition.shape.name]
    simple: dict[str, Any] = {
        "eq": column.__eq__,
        "ne": column.is_distinct_from,
        "lt": column.__lt__,
        "le": column.__le__,
        "gt": column.__gt__,
        "ge": column.__ge__,
        "in": column.in_,
        "null": lambda wanted: column.is_(None) if wanted else column.is_not(None),
    }
    found: ColumnElement[bool] = simple[condition.operator](condition.value)
    return found


def sorting(projection: Projection, name: str, descending: bool) -> list[ColumnElement[Any]]:
    """ORDER BY a field and, among equals, the id; matches the `(field, id)` indexes in both directions."""
    columns = [projection.table.c[name]] + ([projection.table.c.id] if name != "id" else [])
    parts: list[ColumnElement[Any]] = []
    for column in columns:
        part = column.desc() if descending else column.asc()
        if column.nullable:
            part = part.nulls_last() if descending else part.nulls_first()
        parts.append(part)
    return parts


def page(reader: SqlReader, record: type[R], query: Checked) -> Page[R]:
    """A page: one query for the records, one for the total, and one per search term to choose the way."""
    projection = reader.schema[record]
    table = projection.table
    wanted = [clause(projection, condition) for condition in query.conditions]
    cap = COUNT_CAP
    for term in terms(query.search):
        narrow, match = _matches(reader.connection, reader.schema, projection, term)
        wanted.append(match)
        cap = cap if narrow else min(cap, SEARCH_CAP)
    counted = select(table.c.id).where(*wanted).limit(cap + 1).subquery()
    total = reader.connection.execute(select(func.count()).select_from(counted)).scalar_one()
    if query.after is not None:
        wanted.append(_behind(projection, query))
    order = sorting(projection, query.sort.name, query.descending)
    rows = reader.connection.execute(select(table).where(*wanted).order_by(*order).limit(query.limit + 1)).all()
    return finish(query, [reader.decode(record, row) for row in rows], int(total), cap)


def _matches(
    connection: Connection, schema: Schema, projection: Projection, term: str
) -> tuple[bool, ColumnElement[bool]]:
    """Whether few words start with the term, and the condition that one of a record does.

    With many, each record is asked in the list's order until the page is full; a scalar subquery, unlike EXISTS, keeps
    PostgreSQL from collecting all of them first.
    """
    words = schema.words
    low, high = bounds(term)
    within = and_(words.c.entity == projection.record.entity.name, words.c.word >= low, words.c.word < high)
    hits = connection.execute(
        select(func.count()).select_from(select(words.c.word).where(within).limit(NARROW + 1).subquery())
    ).scalar_one()
    if hits <= NARROW:
        return True, projection.table.c.id.in_(select(words.c.record_id).where(within))
    own = select(literal(1)).where(within, words.c.record_id == projection.table.c.id)
    return False, own.limit(1).scalar_subquery() == 1


def _behind(projection: Projection, query: Checked) -> ColumnElement[bool]:
    """What comes after a position in the order of the list, where empty is less than everything."""
    after = query.after
    assert after is not None  # noqa: S101 - the caller asked
    column, key = projection.table.c[query.sort.name], projection.table.c.id
    if column.name == "id":
        return key < after.record_id if query.descending else key > after.record_id
    here, there = tuple_(column, key), tuple_(after.value, after.record_id)
    if after.value is None:
        if query.descending:
            return and_(column.is_(None), key < after.record_id)
        return or_(column.is_not(None), key > after.record_id)
    if not query.descending:
        return here > there
    return or_(here < there, column.is_(None)) if column.nullable else here < there
