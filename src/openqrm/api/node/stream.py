"""`POST /node/v1/stream`: a request that lasts, lines both ways. Plain ASGI, since every heartbeat passes here."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from openqrm.api.node import wire
from openqrm.api.node.connection import Connection
from openqrm.domain.errors import OpenqrmError
from openqrm.operations import machine_tokens
from openqrm.operations.machine_messages import MAX_LINE, parse

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from openqrm.api.node.context import NodeContext
    from openqrm.api.node.hub import Hub
    from openqrm.operations.machine_tokens import Session

PING_SECONDS = 45.0
"""After so long without an order the machine is told that we are there."""
_END_SECONDS = 2.0
"""How long a machine that does not read may hold up the end of its stream."""


class StreamEndpoint:
    """The ASGI application of the stream."""

    def __init__(self, context: NodeContext, hub: Hub) -> None:
        self._context = context
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one stream until either side ends it."""
        token = wire.bearer(scope["headers"])
        try:
            session = await self._hub.blocking(lambda: self._session(token))
        except OpenqrmError as error:
            await wire.failed(error)(scope, receive, send)
            return
        if session is None:
            answer = wire.problem(401, "unauthenticated", "this token is not valid (any more)", remedy="register")
            await answer(scope, receive, send)
            return
        await self._serve(Connection(session), receive, send)

    def _session(self, token: str) -> Session | None:
        with self._context.database.read() as reader:
            return machine_tokens.session_of(reader, token)

    async def _serve(self, connection: Connection, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        writing = asyncio.create_task(_write(connection, send))
        reading = asyncio.create_task(self._read(connection, receive))
        try:
            await self._hub.join(connection)
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hub.leave(connection)
            connection.close()
            reading.cancel()
            await asyncio.wait({writing}, timeout=_END_SECONDS)
            writing.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    async def _read(self, connection: Connection, receive: Receive) -> None:
        rest = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            lines = (rest + message.get("body", b"")).split(b"\n")
            rest = lines.pop()
            now = monotonic()
            for line in lines:
                parsed = parse(line)
                if parsed is not None:
                    self._hub.received(connection, parsed, now)
            if len(rest) > MAX_LINE or not message.get("more_body", False):
                return


async def _write(connection: Connection, send: Send) -> None:
    """Send what is queued, and a ping when nothing was for a while; ends when the connection is closed."""
    while True:
        line: bytes | None = b"ping\n"
        with suppress(TimeoutError):
            async with asyncio.timeout(PING_SECONDS):
                line = await connection.lines.get()
        if line is None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        await send({"type": "http.response.body", "body": line, "more_body": True})
