"""What is over goes after a while: old events, finished operations with their steps, done orders, released leases and
returned loans.

Nothing unfinished goes, nor the newest lease of an image, whose generation is the last one used, nor what keeps an
operation from going. Events outlive operations: one that was about an operation keeps its number in its data.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from openqrm.domain.errors import OpenqrmError
from openqrm.domain.event import Event
from openqrm.domain.lease import Lease, LeaseState, Loan
from openqrm.domain.machine import BootTicket
from openqrm.domain.operation import UNFINISHED, Operation, OperationStatus, StepRecord
from openqrm.domain.resource import MachineOrder, Resource
from openqrm.domain.user import EndedSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from openqrm.domain.model import Record
    from openqrm.engine.ports import Database
    from openqrm.plugin_api.records import Writer

log = logging.getLogger(__name__)

FIRST_SECONDS = 300.0
"""After the start, when everything else has come up."""
EVERY_SECONDS = 3600.0
PAUSE_SECONDS = 0.2
"""Between two transactions, for everyone else's."""
BATCH = 100
"""Records of a kind that one transaction looks at."""
OPERATIONS = 10
"""Operations that one transaction removes: each has steps and events."""
FINISHED = tuple(sorted(set(OperationStatus) - UNFINISHED))
DONE_ORDERS = ("done", "failed", "void")


@dataclass(frozen=True)
class Limits:
    """How long and how many."""

    events_days: int = 90
    events_rows: int = 1_000_000
    operations_days: int = 30
    operations_rows: int = 100_000


@dataclass
class Retention:
    """Removes what is over. `run` as a task; cancel it to stop."""

    database: Database
    limits: Limits
    first: float = FIRST_SECONDS
    every: float = EVERY_SECONDS
    pause: float = PAUSE_SECONDS
    removed: dict[str, int] = field(default_factory=dict)
    """How many of each kind since the start."""

    async def run(self) -> None:
        """Prune now and then until cancelled."""
        await asyncio.sleep(self.first)
        while True:
            try:
                await self.prune()
            except OpenqrmError as error:
                log.warning("old records stay for now: %s", error.detail)
            await asyncio.sleep(self.every)

    async def prune(self) -> None:
        """Remove everything that is over, a transaction at a time, in a thread."""
        work = self.transactions()
        more = True
        while more:
            more = await asyncio.to_thread(next, work, None) is not None
            await asyncio.sleep(self.pause)

    def transactions(self) -> Iterator[int]:
        """Each `next` is one short transaction; yields how many records it removed."""
        for batch in (_leases, _loans, _orders, _tickets, _operations, _sessions, _events):
            yield from self._batches(batch)

    def _batches(self, batch: _Batch) -> Iterator[int]:
        spare: int | None = None
        behind: int | None = -1
        while behind is not None:
            with self.database.write() as writer:
                if spare is None:
                    spare = _spare(writer, self.limits, batch)
                found = batch(writer, self.limits, behind, spare)
                for kind, record_id in found.gone:
                    writer.delete(kind, record_id)
            for kind, _ in found.gone:
                name = kind.entity.name
                self.removed[name] = self.removed.get(name, 0) + 1
                spare -= kind in (Event, Operation)
            behind = found.behind
            yield len(found.gone)


@dataclass
class _Found:
    """What goes, in this order, and the id behind which the next look begins; None at the end."""

    gone: list[tuple[type[Record], int]] = field(default_factory=list)
    behind: int | None = None


if TYPE_CHECKING:
    _Batch = Callable[[Writer, Limits, int, int], _Found]


def _spare(writer: Writer, limits: Limits, batch: _Batch) -> int:
    """How many there are above the limit."""
    if batch is _events:
        return writer.count(Event) - limits.events_rows
    if batch is _operations:
        return writer.count(Operation, status__in=FINISHED) - limits.operations_rows
    return 0


def _before(writer: Writer, days: int) -> datetime:
    return writer.now - timedelta(days=days)


def _events(writer: Writer, limits: Limits, behind: int, spare: int) -> _Found:
    """Ids grow with time, so the oldest are the first."""
    rows = writer.find(Event, limit=BATCH, id__gt=behind)
    limit = _before(writer, limits.events_days)
    gone = [row for place, row in enumerate(rows) if place < spare or row.time < limit]
    return _Found([(Event, row.id) for row in gone], rows[-1].id if len(gone) == BATCH else None)


def _operations(writer: Writer, limits: Limits, behind: int, spare: int) -> _Found:
    rows = writer.find(Operation, limit=OPERATIONS, id__gt=behind, status__in=FINISHED)
    limit, found = _before(writer, limits.operations_days), _Found()
    for place, row in enumerate(rows):
        old = (row.finished_at or _changed(row)) < limit
        if (old or place < spare) and not _needed(writer, row):
            _let_go(writer, row)
            found.gone += [(StepRecord, step.id) for step in writer.find(StepRecord, operation_id=row.id)]
            found.gone += [(MachineOrder, order.id) for order in writer.find(MachineOrder, operation_id=row.id)]
            found.gone.append((Operation, row.id))
    more = len(rows) == OPERATIONS and (_made(rows[-1]) < limit or spare > OPERATIONS)
    found.behind = rows[-1].id if more else None
    return found


def _needed(writer: Writer, operation: Operation) -> bool:
    """Leases and loans name the operation they were taken by; an order may still be on its way."""
    if any(writer.find(kind, limit=1, operation_id=operation.id) for kind in (Lease, Loan)):
        return True
    orders = writer.find(MachineOrder, operation_id=operation.id)
    return any(order.state not in DONE_ORDERS for order in orders)


def _let_go(writer: Writer, operation: Operation) -> None:
    """What points to an operation and stays says so in another way, or no more."""
    for event in writer.find(Event, operation_id=operation.id):
        writer.update(event, operation_id=None, data={**event.data, "operation_id": operation.id})
    for again in writer.find(Operation, rerun_of=operation.id):
        writer.update(again, rerun_of=None)


def _orders(writer: Writer, limits: Limits, behind: int, spare: int) -> _Found:
    """Those of operations go with them: until then they say what a machine was told, which an undo must know."""
    del spare
    rows = writer.find(MachineOrder, limit=BATCH, id__gt=behind, state__in=DONE_ORDERS, operation_id__null=True)
    limit = _before(writer, limits.operations_days)
    gone = [row for row in rows if _changed(row) < limit]
    return _Found([(MachineOrder, row.id) for row in gone], _behind(rows, limit))


def _leases(writer: Writer, limits: Limits, behind: int, spare: int) -> _Found:
    del spare
    rows = writer.find(Lease, limit=BATCH, id__gt=behind, state=LeaseState.RELEASED)
    limit = _before(writer, limits.operations_days)
    gone = [row for row in rows if _changed(row) < limit and not _newest(writer, row)]
    return _Found([(Lease, row.id) for row in gone], _behind(rows, limit))


def _loans(writer: Writer, limits: Limits, behind: int, spare: int) -> _Found:
    """The generation that one used is its volume's since."""
    del spare
    rows = writer.find(Loan, limit=BATCH, id__gt=behind, state=LeaseState.RELEASED)
    limit = _before(writer, limits.operations_days)
    return _Found([(Loan, row.id) for row in rows if _changed(row) < limit], _behind(rows, limit))


def _newest(writer: Writer, lease: Lease) -> bool:
    return not writer.find(Lease, limit=1, image_id=lease.image_id, generation__gt=lease.generation)


def _tickets(writer: Writer, limits: Limits, behind: int, spare: int) -> _Found:
    """A machine may show the ticket of its present boot again."""
    del spare
    rows = writer.find(BootTicket, limit=BATCH, id__gt=behind)
    limit = _before(writer, limits.operations_days)
    old = [row for row in rows if row.expires_at < limit]
    machines = writer.find(Resource, id__in=sorted({row.resource_id for row in old})) if old else ()
    boots = {machine.id: machine.boot_id for machine in machines}
    gone = [row for row in old if row.redeemed_by is None or row.redeemed_by != boots.get(row.resource_id)]
    return _Found([(BootTicket, row.id) for row in gone], _behind(rows, limit))


def _sessions(writer: Writer, limits: Limits, behind: int, spare: int) -> _Found:
    """A session that would have ended by itself needs no mark any more."""
    del limits, spare
    rows = writer.find(EndedSession, limit=BATCH, id__gt=behind)
    gone = [row for row in rows if row.expires_at < writer.now]
    return _Found([(EndedSession, row.id) for row in gone], rows[-1].id if len(gone) == BATCH else None)


def _behind(rows: Sequence[Record], limit: datetime) -> int | None:
    """Where to go on; behind records made too late nothing is old."""
    return rows[-1].id if len(rows) == BATCH and _made(rows[-1]) < limit else None


def _made(record: Record) -> datetime:
    assert record.created_at is not None  # noqa: S101  # it was read from the store
    return record.created_at


def _changed(record: Record) -> datetime:
    return record.updated_at or _made(record)
