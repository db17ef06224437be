"""Commands on the server itself, resource 0."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

from openqrm.remote.channel import KILL_AFTER, SYSTEM_PATH, Data, Raw, chunks, collect

if TYPE_CHECKING:
    from collections.abc import Sequence


class LocalChannel:
    """Child processes with argument vectors, each in a session of its own."""

    async def execute(self, argv: Sequence[str], data: Data) -> Raw:
        """Run to the end; a cancelled one is ended with everything it started."""
        environment = os.environ | {"LC_ALL": "C", "PATH": f"{SYSTEM_PATH}:{os.environ.get('PATH', '')}"}
        try:
            child = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE if data else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except (FileNotFoundError, PermissionError) as error:
            return Raw(127, b"", f"{argv[0]}: {error.strerror}\n".encode())
        try:
            return await _communicate(child, data)
        except asyncio.CancelledError:
            await _end(child)
            raise

    async def close(self) -> None:
        """Nothing is held open."""


async def _communicate(child: asyncio.subprocess.Process, data: Data) -> Raw:
    assert child.stdout is not None  # noqa: S101 - both were asked for as pipes
    assert child.stderr is not None  # noqa: S101
    outputs = asyncio.gather(collect(child.stdout.read), collect(child.stderr.read))
    if child.stdin is not None:
        # A command may end without reading all of its input.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            async for piece in chunks(data):
                child.stdin.write(piece)
                await child.stdin.drain()
        child.stdin.close()
    stdout, stderr = await outputs
    return Raw(await child.wait(), stdout, stderr)


async def _end(child: asyncio.subprocess.Process) -> None:
    """SIGTERM reaches the command through timeout(1), which hands it on to its group; SIGKILL follows."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), KILL_AFTER)
            return
