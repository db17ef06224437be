"""How far a long step is: a command is asked of its host while it runs, a wait knows it from its condition.

It is shown with the step and its operation.
What is shown is no part of the journal's truth: it is written beside it, only while the step acts and is ours.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openqrm.domain.errors import UnavailableError
from openqrm.domain.operation import Operation, OperationStatus, StepRecord, StepStatus
from openqrm.engine.ports import Reporting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    from openqrm.engine.execution import Offload
    from openqrm.engine.journal import Hold
    from openqrm.engine.ports import Database, GateToken, Hosts

LONG_SECONDS = 600
"""A step that may last longer is asked how far it is."""
ASK_SECONDS = 3.0
"""Pause between two questions."""
KEPT_TEXT = 200


@dataclass(frozen=True)
class Following:
    """A step whose command runs under `gate` on `host`. `mask` takes secrets out of what the command says."""

    database: Database
    offload: Offload
    hold: Hold
    step: str
    host: int
    gate: GateToken
    mask: Callable[[str], str]

    @asynccontextmanager
    async def on(self, hosts: Hosts) -> AsyncIterator[None]:
        """While the block runs the command, what it says of its progress is shown. Never fails by itself."""
        if not isinstance(hosts, Reporting):
            yield
            return
        asking = asyncio.create_task(self._ask(hosts))
        try:
            yield
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _ask(self, hosts: Reporting) -> None:
        shown: tuple[int, str] | None = None
        while True:
            await asyncio.sleep(ASK_SECONDS)
            said = await hosts.progress(self.host, self.gate)
            if said is None or said == shown:
                continue
            shown = said
            try:
                await self.offload(lambda: self._show(*said))  # noqa: B023  # awaited before it changes
            except UnavailableError:
                shown = None

    def _show(self, percent: int, text: str) -> None:
        show(self.database, self.hold, self.step, percent, self.mask(text))


def show(database: Database, hold: Hold, step: str, percent: int, text: str) -> None:
    """Write it down, unless the operation is no longer ours or the step has ended. UnavailableError."""
    with database.write() as writer:
        operation = writer.get(Operation, hold.operation_id)
        record = writer.one(StepRecord, operation_id=hold.operation_id, name=step)
        ours = (operation.owner, operation.epoch) == (hold.owner, hold.epoch)
        if record is None or not ours or record.status is not StepStatus.ACTING:
            return
        writer.update(record, output={"progress": percent, "text": text[:KEPT_TEXT]})
        if operation.status is OperationStatus.RUNNING:
            steps = writer.find(StepRecord, operation_id=hold.operation_id)
            done = sum(each.status is StepStatus.DONE for each in steps)
            writer.update(operation, progress=min(99, (100 * done + percent) // len(steps)))


@dataclass
class WaitProgress:
    """What a wait has shown of its condition's progress: at most every `ASK_SECONDS`, and only what is new."""

    database: Database
    offload: Offload
    hold: Hold
    step: str
    shown: tuple[int, str] = (0, "")
    at: datetime | None = None

    async def show(self, now: datetime, percent: int, text: str) -> None:
        """Show it, if it says how far it is and its time has come. Never fails by itself."""
        found = (min(percent, 99), text)
        if percent <= 0 or found == self.shown:
            return
        if self.at is not None and (now - self.at).total_seconds() < ASK_SECONDS:
            return
        self.shown, self.at = found, now
        with suppress(UnavailableError):
            await self.offload(lambda: show(self.database, self.hold, self.step, *found))
