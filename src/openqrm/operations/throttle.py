"""Slowing down whoever guesses passwords: per name and per address, in memory, without locking anyone out for long."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FREE_TRIES = 5
"""Failures in a row that cost nothing: people mistype."""
LONGEST = 60.0
"""Seconds that one more try waits at most."""
FORGET = 900.0
"""Seconds without a failure after which everything is forgotten."""
KEPT = 10_000
"""How many names and addresses are remembered; the oldest give way."""


@dataclass
class _Failures:
    count: int
    last: float


class Throttle:
    """Counts failures by key; after `FREE_TRIES` each further one doubles the wait, from a second on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._guard = threading.Lock()

    def wait(self, *keys: str) -> float:
        """Seconds until a try with these keys is heard; 0 when at once."""
        now = self._clock()
        with self._guard:
            return max((self._left(key, now) for key in keys), default=0.0)

    def failed(self, *keys: str) -> None:
        """A try with these keys was wrong."""
        now = self._clock()
        with self._guard:
            for key in keys:
                known = self._failures.pop(key, None)
                count = known.count if known is not None and now - known.last < FORGET else 0
                self._failures[key] = _Failures(count + 1, now)
            while len(self._failures) > KEPT:
                self._failures.popitem(last=False)

    def succeeded(self, *keys: str) -> None:
        """A try with these keys was right: its failures are forgotten."""
        with self._guard:
            for key in keys:
                self._failures.pop(key, None)

    def _left(self, key: str, now: float) -> float:
        known = self._failures.get(key)
        if known is None or known.count < FREE_TRIES:
            return 0.0
        pause = min(2.0 ** (known.count - FREE_TRIES), LONGEST)
        return max(0.0, known.last + pause - now)
