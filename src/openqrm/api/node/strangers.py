"""What those who have proved nothing may make us write: so many new machines and doubts, and no more."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ENROLLED_AT_ONCE = 2_000
ENROLLED_PER_MINUTE = 1_200
"""MAC addresses that nobody knew are taken in at this pace. Anybody can send them; a hall full of machines that is
switched on together waits a little."""
DOUBT_SECONDS = 600.0
"""The same doubt about one machine is logged so often at most."""


@dataclass
class Strangers:
    """Used by the node API's one writing thread."""

    clock: Callable[[], float] = monotonic
    _credit: float = ENROLLED_AT_ONCE
    _since: float | None = None
    _doubted: dict[int, float] = field(default_factory=dict)

    def may_enrol(self) -> bool:
        """Whether one more machine that nobody knows is taken in now."""
        now = self.clock()
        passed = 0.0 if self._since is None else now - self._since
        self._since = now
        self._credit = min(ENROLLED_AT_ONCE, self._credit + passed * ENROLLED_PER_MINUTE / 60)
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def unheard_of(self, resource_id: int) -> bool:
        """Whether a doubt about this machine is worth an event."""
        now = self.clock()
        if now - self._doubted.get(resource_id, -DOUBT_SECONDS) < DOUBT_SECONDS:
            return False
        self._doubted[resource_id] = now
        return True
