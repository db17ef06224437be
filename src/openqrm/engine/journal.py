"""The journal: what is to be done, who does it, how far it is. It lives in the application's database.

`RecordJournal` needs nothing but a `Database`, so with the dictionary database it is the dictionary journal. The SQL
journal (store/journal.py) replaces the one query that must not look at every unfinished operation.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, TypeVar

from openqrm.domain.errors import StaleError
from openqrm.domain.operation import (
    Controller,
    Counter,
    Operation,
    OperationStatus,
    OperationTarget,
    StepRecord,
    StepStatus,
)
from openqrm.engine.work import SPACING, Work, load, record_of
from openqrm.plugin_api.operation import SHARED
from openqrm.plugin_api.steps import KINDS, Change

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from openqrm.engine.changes import Changes
    from openqrm.engine.ports import Database
    from openqrm.plugin_api.records import Reader, Writer
    from openqrm.plugin_api.steps import Step

log = logging.getLogger(__name__)
T = TypeVar("T")

RUNNABLE = (OperationStatus.QUEUED, OperationStatus.RUNNING, OperationStatus.UNDOING)
EPOCH = "epoch"


@dataclass(frozen=True)
class Hold:
    """The right to go on with an operation, until someone else claims it at a later epoch."""

    operation_id: int
    owner: str
    epoch: int


class Journal(Protocol):
    """Blocking; the runner calls it in bounded threads."""

    def enqueue(
        self,
        writer: Writer,
        operation: Operation,
        steps: Sequence[Step],
        targets: Sequence[str],
        *,
        changes: Changes | None = None,
    ) -> Operation:
        """Store a new operation in the caller's transaction.

        With `changes`, the leading `Change` steps are executed at once: what they raise is the caller's answer, and
        the transaction's rollback leaves no trace. `targets` (`entity-id`) are what it excludes others from; of those
        that are `shared`, only others that do not share them.
        """

    def beat(self, owner: str, seconds: float) -> None:
        """This controller lives for at least `seconds` more."""

    def sole(self, owner: str) -> None:
        """This controller is the only one there is: whatever others own may be claimed at once."""

    def leave(self, owner: str) -> None:
        """This controller stops: what it owns may be claimed at once."""

    def claim(self, owner: str, limit: int, kinds: Mapping[str, int] = KINDS) -> Sequence[Work]:
        """Own up to `limit` operations that can run now, oldest first, each at a new epoch.

        An operation can run if it is queued, running or undoing, its `not_before` has passed, nobody alive owns it,
        every step is of a known kind and version, and it is the first of those that have a target, or behind others
        only that share the target as it does. A controller that is not alive itself gets nothing: it would claim its
        own work a second time.
        """

    def release(self, hold: Hold) -> None:
        """Give an operation back unfinished; nothing happens when the hold is stale."""

    def load(self, operation_id: int) -> Work:
        """An operation and its steps; NotFoundError."""

    def record(self, hold: Hold, body: Callable[[Writer, Operation], T]) -> T:
        """One transaction on a claimed operation; StaleError, and nothing changed, when the hold is stale."""

    def record_all(self, entries: Sequence[tuple[Hold, Callable[[Writer, Operation], T]]]) -> list[T | Exception]:
        """As `record` for several operations, in one transaction if all goes well: each one's result or exception.

        A body may be executed twice, when another one's exception rolled the common transaction back.
        """


class RecordJournal:
    """The journal in terms of records."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def enqueue(
        self,
        writer: Writer,
        operation: Operation,
        steps: Sequence[Step],
        targets: Sequence[str],
        *,
        changes: Changes | None = None,
    ) -> Operation:
        """See `Journal`."""
        stored = writer.insert(operation)
        for target, together in _told_apart(targets).items():
            writer.insert(OperationTarget(operation_id=stored.id, target=target, shared=together))
        outputs: dict[str, Mapping[str, object]] = {}
        admitting = changes is not None
        for place, step in enumerate(steps):
            record = record_of(step, stored.id, place * SPACING)
            admitting = admitting and isinstance(step, Change)
            if admitting and changes is not None and isinstance(step, Change):
                output = changes.do(writer, step, stored.id, outputs)
                outputs[step.name] = output
                times = {"started_at": writer.now, "finished_at": writer.now}
                done = {"status": StepStatus.DONE, "attempts": 1, "output": output}
                record = record.model_copy(update=done | times)
            writer.insert(record)
        return stored

    def beat(self, owner: str, seconds: float) -> None:
        """See `Journal`."""
        with self.database.write() as writer:
            expires = writer.now + timedelta(seconds=seconds)
            known = writer.one(Controller, name=owner)
            if known is None:
                writer.insert(Controller(name=owner, expires_at=expires))
            else:
                writer.update(known, expires_at=expires)

    def sole(self, owner: str) -> None:
        """See `Journal`."""
        with self.database.write() as writer:
            for other in writer.find(Controller, name__ne=owner):
                writer.delete(Controller, other.id)

    def leave(self, owner: str) -> None:
        """See `Journal`."""
        with self.database.write() as writer:
            for mine in writer.find(Controller, name=owner):
                writer.delete(Controller, mine.id)

    def claim(self, owner: str, limit: int, kinds: Mapping[str, int] = KINDS) -> Sequence[Work]:
        """See `Journal`."""
        with self.database.read() as reader:
            if not self.candidates(reader, 1, kinds):
                return ()
        with self.database.write() as writer:
            if not writer.count(Controller, name=owner, expires_at__gt=writer.now):
                return ()
            epoch = self._counter(writer)
            found = self.candidates(writer, limit, kinds)
            claimed = [
                writer.update(operation, owner=owner, epoch=epoch.value + number)
                for number, operation in enumerate(found, start=1)
            ]
            if claimed:
                writer.update(epoch, value=epoch.value + len(claimed))
            steps: dict[int, list[StepRecord]] = {operation.id: [] for operation in claimed}
            for step in writer.find(StepRecord, order="position", operation_id__in=list(steps)):
                steps[step.operation_id].append(step)
            return [Work(operation, tuple(steps[operation.id])) for operation in claimed]

    def _counter(self, writer: Writer) -> Counter:
        """The epoch counter, held: claims of several controllers come one after the other."""
        found = writer.reserve(Counter, name=EPOCH)
        return found[0] if found else writer.insert(Counter(name=EPOCH))

    def candidates(self, reader: Reader, limit: int, kinds: Mapping[str, int]) -> Sequence[Operation]:
        """Operations that can run now, oldest first."""
        alive = {controller.name for controller in reader.find(Controller, expires_at__gt=reader.now)}
        earlier: dict[str, list[bool]] = {}
        behind: set[int] = set()
        for entry in reader.find(OperationTarget, order="operation_id"):
            sharing = earlier.setdefault(entry.target, [])
            if sharing and not (entry.shared and all(sharing)):
                behind.add(entry.operation_id)
            sharing.append(entry.shared)
        found: list[Operation] = []
        for operation in reader.find(Operation, order="id", status__in=list(RUNNABLE)):
            resting = operation.not_before is not None and operation.not_before > reader.now
            if operation.owner in alive or operation.id in behind or resting:
                continue
            steps = reader.find(StepRecord, operation_id=operation.id)
            if all(step.version <= kinds.get(step.kind, 0) for step in steps):
                found.append(operation)
                if len(found) == limit:
                    break
        return found

    def release(self, hold: Hold) -> None:
        """See `Journal`."""
        with self.database.write() as writer:
            held = writer.reserve(Operation, id=hold.operation_id, owner=hold.owner, epoch=hold.epoch)
            for operation in held:
                writer.update(operation, owner=None)

    def load(self, operation_id: int) -> Work:
        """See `Journal`."""
        with self.database.read() as reader:
            return load(reader, reader.get(Operation, operation_id))

    def record(self, hold: Hold, body: Callable[[Writer, Operation], T]) -> T:
        """See `Journal`."""
        with self.database.write() as writer:
            return _fenced(writer, hold, body)

    def record_all(self, entries: Sequence[tuple[Hold, Callable[[Writer, Operation], T]]]) -> list[T | Exception]:
        """See `Journal`."""
        if len(entries) > 1:
            try:
                with self.database.write() as writer:
                    return [_unless_stale(writer, hold, body) for hold, body in entries]
            except Exception:  # noqa: BLE001  # each gets its own below
                log.debug("a common transaction was rolled back")
        results: list[T | Exception] = []
        for hold, body in entries:
            try:
                results.append(self.record(hold, body))
            except Exception as error:  # noqa: BLE001  # handed to the one it belongs to
                results.append(error)
        return results


def _told_apart(targets: Sequence[str]) -> dict[str, bool]:
    """By target, whether it is shared; one that is named both ways is not."""
    named: dict[str, bool] = {}
    for given in targets:
        target = given.removeprefix(SHARED)
        named[target] = named.get(target, True) and given != target
    return named


def _fenced(writer: Writer, hold: Hold, body: Callable[[Writer, Operation], T]) -> T:
    held = writer.reserve(Operation, id=hold.operation_id, owner=hold.owner, epoch=hold.epoch)
    if not held:
        raise StaleError(f"operation {hold.operation_id} is no longer {hold.owner}'s at epoch {hold.epoch}")
    return body(writer, held[0])


def _unless_stale(writer: Writer, hold: Hold, body: Callable[[Writer, Operation], T]) -> T | Exception:
    """A stale hold has changed nothing yet, so the others need not suffer."""
    try:
        return _fenced(writer, hold, body)
    except StaleError as error:
        return error
