"""A small client of Kea's control channel (Kea 2.2 Administrator Reference Manual, chapter 18): one JSON command per
connection on a Unix socket, answered by one JSON object."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import CommandFailedError, UnreachableError

if TYPE_CHECKING:
    from pathlib import Path

OK, ERROR, UNSUPPORTED, EMPTY = 0, 1, 2, 3
"""Results of a command; EMPTY: it worked and found nothing."""


@dataclass(frozen=True)
class Kea:
    """The server whose control socket is `socket`."""

    socket: Path
    seconds: float = 20
    """How long one command may take."""

    async def command(self, name: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
        """Result (OK or EMPTY) and arguments of the answer; CommandFailedError, UnreachableError."""
        request: dict[str, Any] = {"command": name}
        if arguments:
            request["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
        try:
            async with asyncio.timeout(self.seconds):
                answer = await self._exchange(json.dumps(request).encode())
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise UnreachableError(
                f"the DHCP server does not answer at {self.socket}: {error or type(error).__name__}",
                remedy="openqrm doctor says whether its service runs, and where its log is",
            ) from error
        result = int(answer.get("result", ERROR))
        if result not in {OK, EMPTY}:
            raise CommandFailedError(f"DHCP server: {name}: {answer.get('text', answer)}", exit_status=result)
        return result, answer.get("arguments") or {}

    async def _exchange(self, request: bytes) -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        try:
            writer.write(request)
            await writer.drain()
            data = await reader.read()
        finally:
            writer.close()
        try:
            answer = json.loads(data)
        except ValueError as error:
            raise OSError(f"not an answer: {data[:200]!r}") from error
        # A list with one answer is what the control agent passes on; the server itself sends the object.
        found: dict[str, Any] = answer[0] if isinstance(answer, list) else answer
        return found
