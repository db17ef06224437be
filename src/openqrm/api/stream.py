"""Events as they are committed: server-sent events, resumable by id.

A reader that is slow only falls behind: it takes a page when it has taken the page before, see `feed`. Ids grow in the
order of commits (see `store.database`), so that none is passed over. Who may no longer read is cut off at the next
sign of life: the caller is asked for again at each.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from starlette.responses import StreamingResponse

from openqrm.api import incoming
from openqrm.api.feed import Feed
from openqrm.api.sessions import actor_of
from openqrm.domain.errors import InvalidError, UnauthenticatedError, UnavailableError
from openqrm.domain.model import public

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from openqrm.api.context import ApiContext
    from openqrm.domain.event import Event


def stream(context: ApiContext) -> Callable[[Request], Awaitable[Response]]:
    """`GET /v1/events/stream`; starts behind `Last-Event-ID` or `?after=`, else with what comes from now on."""
    feed = Feed(context)
    context.on_commit(feed.committed)

    async def handle(request: Request) -> Response:
        actor = await actor_of(request, context)
        given = incoming.parameters(request, {"after"})
        last = _after(request.headers.get("last-event-id") or given.get("after"))
        place = ExitStack()
        place.enter_context(feed.stream(actor))
        try:
            if last is None:
                last = await feed.newest()
        except BaseException:
            place.close()
            raise
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return _Held(place, _events(request, context, feed, last), headers)

    return handle


class _Held(StreamingResponse):
    """Gives its place back at its end, however it ends, even if nothing was sent."""

    def __init__(self, place: ExitStack, content: AsyncIterator[str], headers: dict[str, str]) -> None:
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await super().__call__(scope, receive, send)


async def _events(request: Request, context: ApiContext, feed: Feed, last: int) -> AsyncIterator[str]:
    feed.follow()
    yield "retry: 2000\n\n"
    seen = time.monotonic()
    while True:
        news = feed.news()
        page = await feed.after(last)
        for event in page:
            last = event.id
            yield as_text(event)
        if not page:
            with suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), context.keep_alive_seconds)
        if time.monotonic() - seen >= context.keep_alive_seconds:
            seen = time.monotonic()
            if not await _may_read(request, context):
                return
            yield ": still here\n\n"


async def _may_read(request: Request, context: ApiContext) -> bool:
    """Whether the caller still is who it was: not locked out, nor without token or session."""
    try:
        await actor_of(request, context)
    except UnauthenticatedError:
        return False
    except UnavailableError:
        return True  # nobody can tell now, and there is nothing to read either
    return True


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
