"""What runs one command on one host: by SSH, or on this very machine. And what they have in common."""

from __future__ import annotations

import asyncio
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from openqrm.domain.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

OUTPUT_LIMIT = 16 << 20
"""Bytes of each output that are kept; what comes after is read and dropped."""
KILL_AFTER = 5
"""Seconds between SIGTERM and SIGKILL for a command that ran out of time."""
GRACE = 4.0
"""Seconds beyond a command's own time until an answer is no longer waited for."""
TIMED_OUT = 124
"""Exit status of timeout(1)."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Also sbin, which is not on the path of every SSH server's sessions."""
_CHUNK = 65536
_PIECE = 1 << 20


Data = bytes | Path


async def chunks(data: Data) -> AsyncIterator[bytes]:
    """What goes to a command's standard input, a piece at a time; a file may be larger than memory."""
    if isinstance(data, bytes):
        if data:
            yield data
        return
    with await asyncio.to_thread(data.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece


class SessionLostError(UnreachableError):
    """The command was or may have been started, and the session ended without its exit status."""


@dataclass(frozen=True)
class Raw:
    """What came back, as bytes."""

    status: int
    stdout: bytes
    stderr: bytes


class Channel(Protocol):
    """Runs argument vectors on one host."""

    async def execute(self, argv: Sequence[str], data: Data) -> Raw:
        """Run to the end with `data`, or the content of the file it names, as standard input.

        UnreachableError; SessionLostError when it broke off.

        The caller limits the time by cancelling; `limited` bounds it on the host too.
        """

    async def close(self) -> None:
        """Give up what is held open."""


def limited(argv: Sequence[str], seconds: float) -> tuple[str, ...]:
    """The command with a limit that the host itself enforces on the whole process group, also when we are gone.

    OpenSSH ignores signal requests for root's sessions, so that ending a command from here is not enough.
    """
    return ("timeout", "-k", str(KILL_AFTER), str(max(1, math.ceil(seconds))), *argv)


def shell_line(argv: Sequence[str]) -> str:
    """An argument vector as the line that SSH needs, each word quoted, in a fixed environment."""
    return f"export LC_ALL=C PATH={SYSTEM_PATH}:$PATH; exec {shlex.join(argv)}"


async def collect(read: Callable[[int], Awaitable[bytes]]) -> bytes:
    """Everything up to the end of a stream, at most OUTPUT_LIMIT bytes of it."""
    parts: list[bytes] = []
    size = 0
    while chunk := await read(_CHUNK):
        if size < OUTPUT_LIMIT:
            parts.append(chunk[: OUTPUT_LIMIT - size])
            size += len(parts[-1])
    return b"".join(parts)
