"""The journal on SQL databases: what can be claimed is one query instead of a look at every unfinished operation.

Everything else, fencing included, is `RecordJournal`'s: the database serializes its writers, so what a transaction has
read stays true until it commits, and operation numbers follow the order of commits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Integer, and_, bindparam, exists, not_, or_, select

from openqrm.domain.operation import Controller, Operation, OperationTarget, StepRecord
from openqrm.engine.journal import RUNNABLE, RecordJournal
from openqrm.store.faults import translated
from openqrm.store.records import SqlReader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Select
    from sqlalchemy.sql.elements import ColumnElement

    from openqrm.engine.ports import Database
    from openqrm.plugin_api.records import Reader
    from openqrm.store.tables import Schema


class SqlJournal(RecordJournal):
    """The journal for `SqlDatabase`."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._statements: dict[tuple[tuple[str, int], ...], Select[tuple[object, ...]]] = {}

    def candidates(self, reader: Reader, limit: int, kinds: Mapping[str, int]) -> Sequence[Operation]:
        """Operations that can run now, oldest first. TypeError for a reader of another kind of database."""
        if not isinstance(reader, SqlReader):
            raise TypeError("the SQL journal needs a SQL database")
        known = tuple(sorted(kinds.items()))
        statement = self._statements.get(known)
        if statement is None:
            statement = self._statements[known] = _runnable(reader.schema, kinds)
        with translated():
            rows = reader.connection.execute(statement, {"now": reader.now, "count": limit}).all()
        return [reader.decode(Operation, row) for row in rows]


def _runnable(schema: Schema, kinds: Mapping[str, int]) -> Select[tuple[object, ...]]:
    """Parameters: `now`, `count`."""
    operations = schema[Operation].table
    not_before = operations.c.not_before
    return (
        select(operations)
        .where(
            operations.c.status.in_([str(status) for status in RUNNABLE]),
            _unowned(schema),
            or_(not_before.is_(None), not_before <= bindparam("now", type_=not_before.type)),
            not_(_behind_another(schema)),
            not_(_unknown_step(schema, kinds)),
        )
        .order_by(operations.c.id)
        .limit(bindparam("count", type_=Integer()))
    )


def _unowned(schema: Schema) -> ColumnElement[bool]:
    """Nobody alive owns it."""
    operations, controllers = schema[Operation].table, schema[Controller].table
    expires = controllers.c.expires_at
    alive = select(controllers.c.name).where(expires > bindparam("now", type_=expires.type))
    return or_(operations.c.owner.is_(None), operations.c.owner.not_in(alive))


def _behind_another(schema: Schema) -> ColumnElement[bool]:
    """An earlier unfinished operation has the same target, and not both share it; finished ones have none left."""
    operations, targets = schema[Operation].table, schema[OperationTarget].table
    mine, other = targets.alias("mine"), targets.alias("other")
    return exists().where(
        mine.c.operation_id == operations.c.id,
        other.c.target == mine.c.target,
        other.c.operation_id < operations.c.id,
        not_(and_(mine.c.shared, other.c.shared)),
    )


def _unknown_step(schema: Schema, kinds: Mapping[str, int]) -> ColumnElement[bool]:
    """A step of a kind or version that this controller cannot execute."""
    operations, steps = schema[Operation].table, schema[StepRecord].table
    known = or_(*(and_(steps.c.kind == kind, steps.c.version <= version) for kind, version in kinds.items()))
    return exists().where(steps.c.operation_id == operations.c.id, not_(known))
