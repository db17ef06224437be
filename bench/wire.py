"""The least that HTTP/1.1 over TLS needs, so that clients cost little beside the controller they measure."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


async def exchange(port: int, tls: ssl.SSLContext, request: bytes) -> tuple[int, bytes]:
    """One request over a new connection, which the server closes: status and body. OSError, EOFError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="127.0.0.1")
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        body = await reader.readexactly(length)
        return int(head.split(b" ", 2)[1]), body
    finally:
        writer.close()


def post(path: str, body: bytes, token: str = "") -> bytes:
    """A request that asks for the connection to be closed after it."""
    bearer = f"Authorization: Bearer {token}\r\n" if token else ""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
    return f"{head}{bearer}Content-Length: {len(body)}\r\n\r\n".encode() + body
