"""Claims operations and drives each to its end, many at once, through the ports."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from openqrm.domain.errors import StaleError, UnavailableError
from openqrm.engine.commits import ChangeFailedError, Commit
from openqrm.engine.core import DEFAULT
from openqrm.engine.execution import Execution, Outcome, Ports, failure
from openqrm.engine.journal import Hold, Journal
from openqrm.engine.messages import Act, Claimed, Command, Decision, Finish, Rest, Sleep, Timer, Undo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from openqrm.engine.notifier import Touched, Wakeup
    from openqrm.engine.state import Policy
    from openqrm.engine.work import Work

log = logging.getLogger(__name__)
T = TypeVar("T")
AWAY_SECONDS = (0.2, 0.5, 1, 2, 5)
"""Pauses while our own database is away; the last one repeats."""


def new_owner() -> str:
    """A name for this process that no other one has."""
    return f"{socket.gethostname()}-{secrets.token_hex(6)}"


class Runner:
    """One controller's share of the work.

    `alone` is for a database that only one controller uses (SQLite): it takes over whatever was left at once.
    `threads=0` executes blocking calls in place, for simulations.
    """

    def __init__(  # noqa: PLR0913  # each has a default and its own name
        self,
        ports: Ports,
        journal: Journal,
        *,
        owner: str | None = None,
        workers: int = 64,
        policy: Policy = DEFAULT,
        lease_seconds: float = 15,
        poll_seconds: float = 1,
        threads: int = 4,
        alone: bool = True,
    ) -> None:
        self.owner = owner or new_owner()
        self.ports = ports
        self.journal = journal
        self.workers = workers
        self.policy = policy
        self.lease_seconds = lease_seconds
        self.poll_seconds = poll_seconds
        self.alone = alone
        self.active: dict[int, asyncio.Task[None]] = {}
        self.execution = Execution(ports, self.offload)
        self._pool = ThreadPoolExecutor(threads, "openqrm-database") if threads else None
        self.tasks: list[asyncio.Task[None]] = []
        self._pending: list[tuple[Hold, Commit, asyncio.Future[Any]]] = []
        self.writing: asyncio.Task[None] | None = None
        self._wakeup: Wakeup | None = None

    async def start(self) -> None:
        """Make this controller known and begin to work. UnavailableError when the database is away."""
        await self.offload(lambda: self.journal.beat(self.owner, self.lease_seconds))
        if self.alone:
            await self.offload(lambda: self.journal.sole(self.owner))
        self.tasks = [asyncio.create_task(self._serve()), asyncio.create_task(self._beat())]

    async def stop(self) -> None:
        """End at once; a step in the air is left to whoever claims the operation next, and verified there."""
        tasks = [*self.tasks, *self.active.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.writing is not None:
            await asyncio.gather(self.writing, return_exceptions=True)
        with suppress(UnavailableError):
            await self.offload(lambda: self.journal.leave(self.owner))
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    def wake(self) -> None:
        """Look for work now."""
        if self._wakeup is not None:
            self._wakeup.set()

    async def offload(self, function: Callable[[], T]) -> T:
        """Blocking code in one of the bounded threads."""
        if self._pool is None:
            return function()
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    # Claiming

    async def _serve(self) -> None:
        with self.ports.notifier.listening(self._worth_a_look) as wakeup:
            self._wakeup = wakeup
            while True:
                try:
                    full = not await self.claim()
                except UnavailableError as error:
                    log.warning("the database is away: %s", error)
                    full = True
                except Exception:
                    log.exception("claiming work failed")
                    full = True
                if full:
                    await wakeup.wait(self.poll_seconds)

    def _worth_a_look(self, touched: Touched) -> bool:
        """Whether a transaction may have made work for us: a new operation, or a target that became free."""
        return not touched or any(
            entity == "operation-target" or (entity == "operation" and record_id not in self.active)
            for entity, record_id in touched
        )

    async def claim(self) -> bool:
        """Take what can run now and there is room for; whether that was anything."""
        room = self.workers - len(self.active)
        if room <= 0:
            return False
        claimed = await self.offload(lambda: self.journal.claim(self.owner, room))
        for work in claimed:
            self.active[work.operation.id] = asyncio.create_task(self._drive(work))
        return bool(claimed)

    async def _beat(self) -> None:
        pause = self.lease_seconds / 3
        while True:
            await asyncio.sleep(pause)
            try:
                await self.offload(lambda: self.journal.beat(self.owner, self.lease_seconds))
            except UnavailableError as error:
                log.warning("the database is away: %s", error)
                pause = min(1.0, self.lease_seconds / 3)
            except Exception:
                log.exception("this controller could not say that it lives")
            else:
                pause = self.lease_seconds / 3

    # Driving one operation

    async def _drive(self, work: Work) -> None:
        operation = work.operation
        hold = Hold(operation.id, self.owner, operation.epoch)
        try:
            await self._steps(work, hold)
        except StaleError as error:
            log.warning("operation %s goes on elsewhere: %s", operation.id, error)
        except Exception:
            log.exception("operation %s met a bug of the engine; it is given back", operation.id)
            await asyncio.sleep(self.poll_seconds)
            await self._patiently(lambda: self.offload(lambda: self.journal.release(hold)))
        finally:
            if self.active.get(operation.id) is asyncio.current_task():
                del self.active[operation.id]
            self.wake()

    async def _steps(self, work: Work, hold: Hold) -> None:
        work, decision = await self._commit(work, hold, Outcome(Claimed()))
        while decision.command is not None and not isinstance(decision.command, Finish | Rest):
            command = decision.command
            if isinstance(command, Act | Undo) and decision.state.step(command.step).atomic:
                work, decision = await self._change(work, hold, command)
                continue
            outcome = await self._perform(command, work, hold)
            work, decision = await self._commit(work, hold, outcome)

    async def _perform(self, command: Command, work: Work, hold: Hold) -> Outcome:
        if isinstance(command, Sleep):
            left = command.until - await self.offload(self._now)
            await asyncio.sleep(max(0.0, left.total_seconds()))
            return Outcome(Timer())
        return await self._patiently(lambda: self.execution.perform(command, work, hold))

    def _now(self) -> Any:
        with self.ports.database.read() as reader:
            return reader.now

    async def _commit(self, work: Work, hold: Hold, outcome: Outcome) -> tuple[Work, Decision]:
        """Record what happened and what follows; changes that follow are executed in the same transaction."""
        commit = Commit(work, self.ports.changes, self.policy, outcome)
        try:
            return await self._patiently(lambda: self._write(hold, commit))
        except ChangeFailedError:
            alone = Commit(work, self.ports.changes, self.policy, outcome, batch=0)
            return await self._patiently(lambda: self._write(hold, alone))

    async def _change(self, work: Work, hold: Hold, command: Command) -> tuple[Work, Decision]:
        """A change in a transaction of its own, and what follows it; or the record of its failure."""
        commit = Commit(work, self.ports.changes, self.policy, command=command, batch=1)
        try:
            return await self._patiently(lambda: self._write(hold, commit))
        except ChangeFailedError as error:
            event = failure(error.cause)
        failed = Commit(work, self.ports.changes, self.policy, Outcome(event), batch=0)
        return await self._patiently(lambda: self._write(hold, failed))

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Again and again while our own database is away: that is nobody's failed try."""
        pauses = iter(AWAY_SECONDS)
        pause = 0.0
        while True:
            try:
                return await attempt()
            except UnavailableError as error:
                pause = next(pauses, pause)
                log.warning("the database is away, again in %s s: %s", pause, error)
                await asyncio.sleep(pause)

    # Writing: what several operations want to record at the same time goes into one transaction

    async def _write(self, hold: Hold, commit: Commit) -> tuple[Work, Decision]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending.append((hold, commit, future))
        if self.writing is None or self.writing.done():
            self.writing = asyncio.create_task(self._flush())
        result: tuple[Work, Decision] = await future
        return result

    async def _flush(self) -> None:
        while self._pending:
            batch, self._pending = self._pending, []
            entries = [(hold, commit) for hold, commit, _ in batch]
            results: Sequence[Any]
            try:
                results = await self.offload(lambda: self.journal.record_all(entries))  # noqa: B023  # awaited here
            except Exception as error:  # noqa: BLE001  # handed to everyone who waits
                results = [error] * len(batch)
            for (_, _, future), result in zip(batch, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
