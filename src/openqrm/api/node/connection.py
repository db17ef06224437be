"""One open stream, as the hub sees it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openqrm.operations.machine_tokens import Session

_QUEUE = 64
"""Lines that may wait for a machine that does not read; then its stream is closed, and its orders are sent anew."""

_LOG_BURST = 50.0
_LOG_PER_SECOND = 1.0


@dataclass(eq=False)
class Connection:
    """`lines` go to the machine; None ends the stream. `heard` is set whenever the machine says something."""

    session: Session
    lines: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(_QUEUE))
    last_heard: float = field(default_factory=monotonic)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False
    log_credit: float = _LOG_BURST
    logged_at: float = field(default_factory=monotonic)

    def may_log(self, at: float) -> bool:
        """Whether one more line goes to the log: a machine in a loop must not fill our database."""
        self.log_credit = min(_LOG_BURST, self.log_credit + (at - self.logged_at) * _LOG_PER_SECOND)
        self.logged_at = at
        if self.log_credit < 1:
            return False
        self.log_credit -= 1
        return True

    def put(self, line: bytes) -> None:
        """Send a line, in order; a machine that does not read is cut off."""
        if self.closed:
            return
        try:
            self.lines.put_nowait(line)
        except asyncio.QueueFull:
            self.close()

    def close(self) -> None:
        """End the stream; what was not sent yet is forgotten."""
        if self.closed:
            return
        self.closed = True
        self.heard.set()
        while not self.lines.empty():
            self.lines.get_nowait()
        self.lines.put_nowait(None)

    def patience(self, heartbeat_seconds: float) -> float:
        """Seconds for which the machine may still be silent and yet be taken for alive."""
        return self.last_heard + 1.25 * heartbeat_seconds - monotonic()
