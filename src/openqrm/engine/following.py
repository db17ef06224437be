"""How far a long command is: asked of its host while it runs, and shown with its step and its operation.

What is shown is no part of the journal's truth: it is written beside it, only while the step acts and is ours.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openqrm.domain.errors import UnavailableError
from openqrm.domain.operation import Operation, OperationStatus, StepRecord, StepStatus
from openqrm.engine.ports import Reporting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

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
        """Write it down, unless the operation is no longer ours or the step has ended. UnavailableError."""
        with self.database.write() as writer:
            operation = writer.get(Operation, self.hold.operation_id)
            record = writer.one(StepRecord, operation_id=self.hold.operation_id, name=self.step)
            ours = (operation.owner, operation.epoch) == (self.hold.owner, self.hold.epoch)
            if record is None or not ours or record.status is not StepStatus.ACTING:
                return
            writer.update(record, output={"progress": percent, "text": self.mask(text)[:KEPT_TEXT]})
            if operation.status is OperationStatus.RUNNING:
                steps = writer.find(StepRecord, operation_id=self.hold.operation_id)
                done = sum(each.status is StepStatus.DONE for each in steps)
                writer.update(operation, progress=min(99, (100 * done + percent) // len(steps)))
