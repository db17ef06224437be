"""New events for all open streams: read once, whatever the number of readers, and kept in a small window.

Who falls behind the window reads the database for itself, a page at a time, until it has caught up.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from openqrm.api.problems import TooManyError
from openqrm.domain.errors import UnavailableError
from openqrm.domain.event import Event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openqrm.api.context import ApiContext
    from openqrm.domain.user import Actor

PAGE = 100
WINDOW = 1000
"""Newest events kept for all."""
LOOK_SECONDS = 2.0
"""How late commits of other controllers may be seen; our own wake us."""
STREAMS = 200
"""Streams at once."""
STREAMS_OF_ONE = 10
"""Streams of one user at once."""


class Feed:
    """Used from one event loop, but for `committed`. Reads while there are streams, and sleeps otherwise."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._window: deque[Event] = deque(maxlen=WINDOW)
        self._start = 0
        """Every event with a higher id, up to the newest read, is in the window."""
        self._readers: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
        self.reads = 0
        """How often the database was asked for new events."""

    @contextmanager
    def stream(self, actor: Actor) -> Iterator[None]:
        """A place for one more stream; TooManyError, UnavailableError when there is none."""
        if self._readers[actor.name] >= STREAMS_OF_ONE:
            raise TooManyError(f"{actor.name} has {STREAMS_OF_ONE} open event streams", remedy="close one, or share it")
        if self._readers.total() >= STREAMS:
            raise UnavailableError("too many event streams are open", remedy="try again later, or read /v1/events")
        self._readers[actor.name] += 1
        try:
            yield
        finally:
            self._readers[actor.name] -= 1
            if not self._readers.total() and self._task is not None:
                self._task.cancel()
                self._task = None

    def follow(self) -> None:
        """Read for everyone, from the newest event on, unless that is done already."""
        if self._task is None or self._task.done():
            self._loop = asyncio.get_running_loop()
            self._wake, self._news = asyncio.Event(), asyncio.Event()
            self._window.clear()
            self._task = self._loop.create_task(self._read(self._wake))
            self._start = -1

    async def newest(self) -> int:
        """The id of the newest event."""
        return await self._context.call(partial(_newest, self._context))

    async def after(self, last: int) -> list[Event]:
        """A page of events behind `last`; empty when there is none yet."""
        if self._task is not None and not self._task.done() and 0 <= self._start <= last:
            return [event for event in self._window if event.id > last][:PAGE]
        try:
            return await self._context.call(partial(_page, self._context, last))
        except UnavailableError:
            return []  # it comes back

    def news(self) -> asyncio.Event:
        """Set when there is something new; take it before a look, so that nothing comes in between unseen."""
        return self._news

    def committed(self, commit: Any) -> None:
        """Called after every commit, in the writing thread."""
        if commit.events and self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._wake.set)

    async def _read(self, wake: asyncio.Event) -> None:
        last: int | None = None
        while True:
            wake.clear()
            page: list[Event] = []
            with suppress(UnavailableError):
                if last is None:
                    last = self._start = await self.newest()
                    self._tell()
                self.reads += 1
                page = await self._context.call(partial(_page, self._context, last))
            if page and last is not None:
                dropped = len(self._window) + len(page) - WINDOW
                if dropped > 0:
                    self._start = self._window[dropped - 1].id
                self._window.extend(page)
                last = page[-1].id
                self._tell()
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), LOOK_SECONDS)

    def _tell(self) -> None:
        """Wake every stream that waits; who comes later waits for the next time."""
        told, self._news = self._news, asyncio.Event()
        told.set()


def _newest(context: ApiContext) -> int:
    with context.pipeline.database.read() as reader:
        found = reader.find(Event, order="-id", limit=1)
    return found[0].id if found else 0


def _page(context: ApiContext, last: int) -> list[Event]:
    with context.pipeline.database.read() as reader:
        return list(reader.find(Event, order="id", limit=PAGE, id__gt=last))
