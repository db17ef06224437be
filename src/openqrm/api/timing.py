"""`Server-Timing` on every answer of the public API: the time it took, the database's part and its statements.

W3C Server Timing; browsers show it beside each request. Streams say what passed until they began.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Statements(Protocol):
    """What a request has asked of the database so far."""

    @property
    def count(self) -> int:
        """Statements."""

    @property
    def seconds(self) -> float:
        """Time spent in them."""


class ServerTiming:
    """ASGI middleware. `counting` opens a count of what this request asks of the database."""

    def __init__(self, app: ASGIApp, counting: Callable[[], AbstractContextManager[Statements]]) -> None:
        self._app = app
        self._counting = counting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; add the header to the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        with self._counting() as statements:

            async def timed(message: Message) -> None:
                if message["type"] == "http.response.start":
                    value = _header(statements, time.perf_counter() - began)
                    message["headers"] = [*message.get("headers", ()), (b"server-timing", value.encode("ascii"))]
                await send(message)

            await self._app(scope, receive, timed)


def _header(statements: Statements, seconds: float) -> str:
    words = "statement" if statements.count == 1 else "statements"
    database = f'db;dur={statements.seconds * 1000:.1f};desc="{statements.count} {words}"'
    return f"{database}, total;dur={seconds * 1000:.1f}"
