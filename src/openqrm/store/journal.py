"""The journal on SQL databases: what can be claimed is one query instead of a look at every unfinished operation.

Everything else, fencing included, is `RecordJournal`'s: the database serializes its writers, so what a transaction has
read stays true until it commits, and operation numbers follow the order of commits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, exists, not_, or_, select

from openqrm.domain.operation import Controller, Operation, OperationTarget, StepRecord
from openqrm.engine.journal import RUNNABLE, RecordJournal
from openqrm.store.faults import translated
from openqrm.store.records import SqlReader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Select
    from sqlalchemy.sql.elements import ColumnElement

    from openqrm.plugin_api.records import Reader


class SqlJournal(RecordJournal):
    """The journal for `SqlDatabase`."""

    def candidates(self, reader: Reader, limit: int, kinds: Mapping[str, int]) -> Sequence[Operation]:
        """Operations that can run now, oldest first. TypeError for a reader of another kind of database."""
        if not isinstance(reader, SqlReader):
            raise TypeError("the SQL journal needs a SQL database")
        statement = _runnable(reader, kinds).limit(limit)
        with translated():
            rows = reader.connection.execute(statement).all()
        return [reader.decode(Operation, row) for row in rows]


def _runnable(reader: SqlReader, kinds: Mapping[str, int]) -> Select[tuple[object, ...]]:
    operations = reader.schema[Operation].table
    return (
        select(operations)
        .where(
            operations.c.status.in_([str(status) for status in RUNNABLE]),
            _unowned(reader),
            or_(operations.c.not_before.is_(None), operations.c.not_before <= reader.now),
            not_(_behind_another(reader)),
            not_(_unknown_step(reader, kinds)),
        )
        .order_by(operations.c.id)
    )


def _unowned(reader: SqlReader) -> ColumnElement[bool]:
    """Nobody alive owns it."""
    operations, controllers = reader.schema[Operation].table, reader.schema[Controller].table
    alive = select(controllers.c.name).where(controllers.c.expires_at > reader.now)
    return or_(operations.c.owner.is_(None), operations.c.owner.not_in(alive))


def _behind_another(reader: SqlReader) -> ColumnElement[bool]:
    """An earlier unfinished operation shares a target; finished ones have none left."""
    operations, targets = reader.schema[Operation].table, reader.schema[OperationTarget].table
    mine, other = targets.alias("mine"), targets.alias("other")
    return exists().where(
        mine.c.operation_id == operations.c.id,
        other.c.target == mine.c.target,
        other.c.operation_id < operations.c.id,
    )


def _unknown_step(reader: SqlReader, kinds: Mapping[str, int]) -> ColumnElement[bool]:
    """A step of a kind or version that this controller cannot execute."""
    operations, steps = reader.schema[Operation].table, reader.schema[StepRecord].table
    known = or_(*(and_(steps.c.kind == kind, steps.c.version <= version) for kind, version in kinds.items()))
    return exists().where(steps.c.operation_id == operations.c.id, not_(known))
