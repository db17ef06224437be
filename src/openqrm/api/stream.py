"""Events as they are committed: server-sent events, resumable by id.

A reader that is slow only falls behind: events wait in the database, not in memory, and are read a page at a time when
the reader has taken the page before. Commits of other controllers are seen at the next look, at most `LOOK_SECONDS`
later. Ids grow in the order of commits (see `store.database`), so that none is passed over.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.responses import StreamingResponse

from openqrm.api import incoming
from openqrm.api.sessions import actor_of
from openqrm.domain.errors import InvalidError, UnavailableError
from openqrm.domain.event import Event
from openqrm.domain.model import public

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from openqrm.api.context import ApiContext

PAGE = 100
LOOK_SECONDS = 2.0


class Wakener:
    """Wakes every open stream after a commit that logged an event; called from writing threads."""

    def __init__(self) -> None:
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def add(self) -> asyncio.Event:
        """A flag that is set at the next commit."""
        flag = asyncio.Event()
        self._waiting.add((asyncio.get_running_loop(), flag))
        return flag

    def remove(self, flag: asyncio.Event) -> None:
        """The stream is closed."""
        self._waiting.discard((asyncio.get_running_loop(), flag))

    def committed(self, commit: Any) -> None:
        """Called after every commit."""
        if not commit.events:
            return
        for loop, flag in tuple(self._waiting):
            with suppress(RuntimeError):  # the loop ended between the copy and now
                loop.call_soon_threadsafe(flag.set)


def stream(context: ApiContext) -> Callable[[Request], Awaitable[Response]]:
    """`GET /v1/events/stream`; starts behind `Last-Event-ID` or `?after=`, else with what comes from now on."""
    wakener = Wakener()
    context.on_commit(wakener.committed)

    async def handle(request: Request) -> Response:
        await actor_of(request, context)
        given = incoming.parameters(request, {"after"})
        last = _after(request.headers.get("last-event-id") or given.get("after"))
        if last is None:
            last = await context.call(partial(_newest, context))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_events(context, wakener, last), media_type="text/event-stream", headers=headers)

    return handle


async def _events(context: ApiContext, wakener: Wakener, last: int) -> AsyncIterator[str]:
    flag = wakener.add()
    silent = 0.0
    try:
        yield "retry: 2000\n\n"
        while True:
            flag.clear()
            page = await _look(context, last)
            for event in page:
                last = event.id
                yield as_text(event)
            if page:
                silent = 0.0
                continue
            wait = min(LOOK_SECONDS, context.keep_alive_seconds)
            with suppress(TimeoutError):
                await asyncio.wait_for(flag.wait(), wait)
            silent += wait
            if silent >= context.keep_alive_seconds:
                silent = 0.0
                yield ": still here\n\n"
    finally:
        wakener.remove(flag)


async def _look(context: ApiContext, last: int) -> list[Event]:
    """The next page; nothing while the database is away, which ends by itself."""
    try:
        return await context.call(partial(_page, context, last))
    except UnavailableError:
        return []


def as_text(event: Event) -> str:
    """One event in the format of server-sent events (WHATWG HTML, section 9.2)."""
    data = json.dumps(public(event), separators=(",", ":"))
    return f"id: {event.id}\nevent: {event.severity}\ndata: {data}\n\n"


def _after(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise InvalidError("Last-Event-ID: is the id of an event", field="Last-Event-ID")
    return int(text)


def _newest(context: ApiContext) -> int:
    with context.pipeline.database.read() as reader:
        found = reader.find(Event, order="-id", limit=1)
    return found[0].id if found else 0


def _page(context: ApiContext, last: int) -> list[Event]:
    with context.pipeline.database.read() as reader:
        return list(reader.find(Event, order="id", limit=PAGE, id__gt=last))
