"""Wake-ups inside one controller: who waits for a change of our database looks at once instead of polling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Touched = frozenset[tuple[str, int]]
"""(entity name, id) of what a transaction changed; empty when that is not known."""
Filter = Callable[[Touched], bool]

JOURNAL = frozenset({"operation", "step", "operation-target", "controller", "counter", "event"})
"""What the engine itself writes all the time; conditions do not look at these."""


def domain_only(touched: Touched) -> bool:
    """Whether a change may matter to a condition."""
    return not touched or any(entity not in JOURNAL for entity, _ in touched)


class Wakeup:
    """One waiter's memory of whether something happened since it last waited."""

    def __init__(self, wanted: Filter) -> None:
        self.wanted = wanted
        self._event = asyncio.Event()

    def set(self) -> None:
        """Something happened."""
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Until something happened, or that many seconds have passed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self._event.clear()


class Notifier:
    """`notify` may be called from any thread; register it as the database's `on_commit` listener."""

    def __init__(self) -> None:
        self._wakeups: list[tuple[asyncio.AbstractEventLoop, Wakeup]] = []

    def notify(self, touched: Touched = frozenset()) -> None:
        """A transaction was committed."""
        for loop, wakeup in tuple(self._wakeups):
            if wakeup.wanted(touched):
                with suppress(RuntimeError):  # its loop was closed
                    loop.call_soon_threadsafe(wakeup.set)

    @contextmanager
    def listening(self, wanted: Filter = lambda touched: True) -> Iterator[Wakeup]:  # noqa: ARG005  # any change
        """A wake-up for the running loop; what happens from now on is not missed."""
        entry = (asyncio.get_running_loop(), Wakeup(wanted))
        self._wakeups = [*self._wakeups, entry]
        try:
            yield entry[1]
        finally:
            self._wakeups = [other for other in self._wakeups if other is not entry]
