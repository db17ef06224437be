"""The crash loop: kill the controller at every journal boundary of a piece of work, and see that nothing is lost.

A *boundary* is the moment just before or just after a journal write. At a boundary the controller is dropped as a
`kill -9` would: its tasks vanish without giving anything back. A new one, with a new name, then finishes the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from openqrm.domain.operation import Operation, OperationStatus
from openqrm.plugin_api.steps import KINDS

if TYPE_CHECKING:
    from openqrm.engine.changes import Changes
    from openqrm.engine.journal import Hold, Journal
    from openqrm.engine.runner import Runner
    from openqrm.engine.work import Work
    from openqrm.plugin_api.records import Writer
    from openqrm.plugin_api.steps import Step

T = TypeVar("T")

GOOD_ENDS = frozenset({OperationStatus.DONE, OperationStatus.FAILED})


class CrashError(BaseException):
    """The controller is gone. Not an Exception: nothing may handle it."""


@dataclass
class CrashingJournal:
    """A journal whose controller dies at boundary number `at` (counted from 0); with None it only counts."""

    journal: Journal
    at: int | None = None
    boundaries: int = 0
    crashed: asyncio.Event = field(default_factory=asyncio.Event)

    def _boundary(self) -> None:
        if self.crashed.is_set():
            raise CrashError("a dead controller writes nothing")
        if self.boundaries == self.at:
            self.crashed.set()
            raise CrashError(f"boundary {self.at}")
        self.boundaries += 1

    def _around(self, write: Callable[[], T]) -> T:
        self._boundary()
        result = write()
        self._boundary()
        return result

    def enqueue(
        self,
        writer: Writer,
        operation: Operation,
        steps: Sequence[Step],
        targets: Sequence[str],
        *,
        changes: Changes | None = None,
    ) -> Operation:
        """Not a boundary: it is part of the caller's transaction."""
        return self.journal.enqueue(writer, operation, steps, targets, changes=changes)

    def beat(self, owner: str, seconds: float) -> None:
        """Not counted: a heartbeat changes no operation."""
        self.journal.beat(owner, seconds)

    def sole(self, owner: str) -> None:
        """Not counted."""
        self.journal.sole(owner)

    def leave(self, owner: str) -> None:
        """Not counted."""
        self.journal.leave(owner)

    def claim(self, owner: str, limit: int, kinds: Mapping[str, int] = KINDS) -> Sequence[Work]:
        """A boundary after, if there is something to claim."""
        if self.crashed.is_set():
            raise CrashError("a dead controller claims nothing")
        found = self.journal.claim(owner, limit, kinds)
        if found:
            self._boundary()
        return found

    def release(self, hold: Hold) -> None:
        """Counted."""
        self._around(lambda: self.journal.release(hold))

    def load(self, operation_id: int) -> Work:
        """Reading is no boundary."""
        return self.journal.load(operation_id)

    def record(self, hold: Hold, body: Callable[[Writer, Operation], T]) -> T:
        """Counted."""
        return self._around(lambda: self.journal.record(hold, body))

    def record_all(self, entries: Sequence[tuple[Hold, Callable[[Writer, Operation], T]]]) -> list[T | Exception]:
        """Counted."""
        return self._around(lambda: self.journal.record_all(entries))


def drop(runner: Runner) -> None:
    """Kill a controller: nothing of it runs on, nothing is given back."""
    for task in [*runner.tasks, *runner.active.values()]:
        task.cancel()
    if runner.writing is not None and runner.writing.done() and not runner.writing.cancelled():
        runner.writing.exception()  # it was seen: no complaint when it is collected


@dataclass(frozen=True)
class World:
    """A fresh database with work in it. `site` is a `testing.controller.Site` or anything with its methods."""

    site: Any
    operations: tuple[int, ...]
    settle: Callable[[], Awaitable[None]]
    """Until no operation has work for a controller."""


Build = Callable[[], World]
Invariant = Callable[[World], None]


@dataclass(frozen=True)
class Report:
    """What a crash loop saw: how many boundaries there are, and each operation's end after a crash at each of them."""

    boundaries: int
    ends: tuple[tuple[OperationStatus, ...], ...]


async def count_boundaries(build: Build) -> int:
    """Run the work to its end without a crash."""
    world = build()
    journal = CrashingJournal(world.site.journal)
    runner = world.site.runner(journal=journal, owner="counting")
    await runner.start()
    await world.settle()
    await runner.stop()
    return journal.boundaries


async def crash_at(build: Build, boundary: int, invariants: Sequence[Invariant] = ()) -> tuple[OperationStatus, ...]:
    """Crash at one boundary, let another controller finish, check. AssertionError with the boundary's number."""
    world = build()
    journal = CrashingJournal(world.site.journal, boundary)
    first = world.site.runner(journal=journal, owner=f"first-{boundary}")
    await first.start()
    settled = asyncio.ensure_future(world.settle())
    crashed = asyncio.create_task(journal.crashed.wait())
    await asyncio.wait({settled, crashed}, return_when=asyncio.FIRST_COMPLETED)
    crashed.cancel()
    drop(first)
    second = world.site.runner(owner=f"second-{boundary}")
    await second.start()
    try:
        await settled
    finally:
        await second.stop()
        with suppress(asyncio.CancelledError):
            await crashed
    ends = tuple(world.site.status(operation) for operation in world.operations)
    try:
        assert set(ends) <= GOOD_ENDS, f"ends: {ends}"  # noqa: S101  # this is a test's assertion
        for invariant in invariants:
            invariant(world)
    except AssertionError as error:
        raise AssertionError(f"after a crash at boundary {boundary}: {error}") from error
    return ends


async def crash_everywhere(build: Build, invariants: Sequence[Invariant] = ()) -> Report:
    """Crash once at each boundary, each time on a fresh world."""
    boundaries = await count_boundaries(build)
    ends = [await crash_at(build, boundary, invariants) for boundary in range(boundaries)]
    return Report(boundaries, tuple(ends))
