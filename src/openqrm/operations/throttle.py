"""Slowing down whoever guesses passwords, in memory, so that a guesser cannot lock the owner of a name out.

Failures count for the pair of name and address, for the address, and for the name. The name's own pause is short: it
only slows a guesser with many addresses down. From an address where a name has logged in before, only the pair counts,
so the owner gets in there whatever others do elsewhere. Over the Unix socket, without an address, it is the same.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FORGET = 900.0
"""Seconds without a failure after which everything is forgotten."""
KEPT = 10_000
"""How many pairs, names and addresses are remembered; the oldest give way."""


@dataclass(frozen=True)
class Limit:
    """`free` failures in a row cost nothing, each further one doubles the pause: from a second to `longest`."""

    free: int
    longest: float


PAIR = Limit(5, 60.0)
"""People mistype."""
ADDRESS = Limit(10, 60.0)
"""Several people may sit behind one address."""
NAME = Limit(20, 2.0)
"""So a name can be guessed at 43 000 times a day at most, from however many addresses."""


@dataclass
class _Failures:
    count: int
    last: float


_Key = tuple[str, ...]


class Throttle:
    """Counts failures; thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[_Key, _Failures] = OrderedDict()
        self._trusted: OrderedDict[_Key, None] = OrderedDict()
        self._guard = threading.Lock()

    def wait(self, name: str, address: str) -> float:
        """Seconds until a try is heard; 0 when at once."""
        now = self._clock()
        with self._guard:
            return max(self._left(key, limit, now) for key, limit in self._limits(name, address).items())

    def failed(self, name: str, address: str) -> None:
        """A try was wrong."""
        now = self._clock()
        with self._guard:
            for key in self._limits(name, address):
                known = self._failures.pop(key, None)
                count = known.count if known is not None and now - known.last < FORGET else 0
                self._failures[key] = _Failures(count + 1, now)
            while len(self._failures) > KEPT:
                self._failures.popitem(last=False)

    def succeeded(self, name: str, address: str) -> None:
        """A try was right: the pair's failures are forgotten, and the name is known at this address from now on."""
        pair = _pair(name, address)
        with self._guard:
            self._failures.pop(pair, None)
            self._trusted.pop(pair, None)
            self._trusted[pair] = None
            while len(self._trusted) > KEPT:
                self._trusted.popitem(last=False)

    def _limits(self, name: str, address: str) -> dict[_Key, Limit]:
        pair = _pair(name, address)
        if not address or pair in self._trusted:
            return {pair: PAIR}
        return {pair: PAIR, ("address", address): ADDRESS, ("name", name): NAME}

    def _left(self, key: _Key, limit: Limit, now: float) -> float:
        known = self._failures.get(key)
        if known is None or known.count < limit.free or now - known.last >= FORGET:
            return 0.0
        pause = min(2.0 ** min(known.count - limit.free, 30), limit.longest)
        return max(0.0, known.last + pause - now)


def _pair(name: str, address: str) -> _Key:
    return ("pair", name, address)
