"""SSH connections to one host: made when needed, shared, closed when idle."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncssh

from openqrm.domain.errors import UnreachableError
from openqrm.remote.channel import Data, Raw, SessionLostError, chunks, collect, shell_line
from openqrm.remote.endpoint import Endpoint, PinnedClient, algorithms, trusted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from openqrm.remote.endpoint import Learned, Lookup


@dataclass(frozen=True)
class Limits:
    """How connections are used. `sessions` stays below OpenSSH's MaxSessions of 10; times are seconds."""

    sessions: int = 8
    connections: int = 4
    idle: float = 300.0
    connect: float = 10.0
    keepalive: float = 10.0
    keepalives_missed: int = 3


DEFAULT_LIMITS = Limits()


class _Link:
    """One connection and how many sessions it carries."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self.connection = connection
        self.sessions = 0
        self.used = time.monotonic()
        self.closing = False

    @property
    def alive(self) -> bool:
        return not self.closing and not self.connection.is_closed()


class SshChannel:
    """The connections to one resource. All calls come from one event loop."""

    def __init__(self, resource: int, lookup: Lookup, learned: Learned, key_file: Path, limits: Limits) -> None:
        self._resource = resource
        self._lookup = lookup
        self._learned = learned
        self._key_file = key_file
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.sessions * limits.connections)
        self._links: list[_Link] = []
        self._connecting: asyncio.Task[_Link] | None = None
        self._closer: asyncio.TimerHandle | None = None

    async def execute(self, argv: Sequence[str], data: Data) -> Raw:
        """Run to the end in a session of a shared connection."""
        async with self._slots, self._session(shell_line(argv)) as process:
            return await _communicate(process, data, self._resource)

    async def close(self) -> None:
        """End all connections; commands that run lose their session."""
        if self._closer is not None:
            self._closer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        links, self._links = self._links, []
        for link in links:
            link.connection.abort()
            await link.connection.wait_closed()

    @asynccontextmanager
    async def _session(self, line: str) -> AsyncIterator[asyncssh.SSHClientProcess[bytes]]:
        link, process = await self._open(line)
        try:
            yield process
        finally:
            process.close()
            link.sessions -= 1
            link.used = time.monotonic()
            self._schedule_close()

    async def _open(self, line: str) -> tuple[_Link, asyncssh.SSHClientProcess[bytes]]:
        """A session; a second connection is tried when the host refuses one more on the first."""
        refused = ""
        for wait in (0.0, 0.1, 0.5, 2.0):
            await asyncio.sleep(wait)
            link = await self._link()
            link.sessions += 1
            try:
                return link, await link.connection.create_process(line, encoding=None)
            except asyncssh.ChannelOpenError as error:  # nothing was started: the host said no, or it hung up before
                refused = error.reason
            except (asyncssh.Error, OSError) as error:
                link.sessions -= 1
                raise SessionLostError(f"the SSH connection to resource {self._resource} broke off: {error}") from error
            except BaseException:
                link.sessions -= 1
                raise
            link.sessions -= 1
        raise UnreachableError(f"resource {self._resource} opens no further SSH session: {refused}")

    async def _link(self) -> _Link:
        """The least used connection with room, or a new one. Those who wait for a new one share it, or its error."""
        while True:
            self._links = [link for link in self._links if link.alive]
            free = [link for link in self._links if link.sessions < self._limits.sessions]
            if free:
                return min(free, key=lambda link: link.sessions)
            if self._connecting is None:
                self._connecting = asyncio.create_task(self._connect())
                self._connecting.add_done_callback(self._connected)
            await self._shared(self._connecting)

    async def _shared(self, connecting: asyncio.Task[_Link]) -> None:
        """Wait for what others wait for, too. That it was given up is no cancellation of those who wait."""
        try:
            await asyncio.shield(connecting)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not connecting.cancelled() or (task is not None and task.cancelling()):
                raise
            raise UnreachableError(
                f"the SSH connection to resource {self._resource} was closed before it was up"
            ) from None

    def _connected(self, task: asyncio.Task[_Link]) -> None:
        self._connecting = None
        if not task.cancelled() and task.exception() is None:
            self._links.append(task.result())
            self._schedule_close()

    async def _connect(self) -> _Link:
        endpoint = await asyncio.to_thread(self._lookup, self._resource)
        keys = trusted(endpoint)
        client = PinnedClient(keys, first_use=endpoint.first_use)
        try:
            connection = await asyncssh.connect(
                endpoint.address,
                endpoint.port,
                username=endpoint.user,
                client_factory=lambda: client,
                client_keys=[str(self._key_file)],
                known_hosts=([], [], []),
                server_host_key_algs=algorithms(keys) or (),
                preferred_auth="publickey",
                agent_path=None,
                config=None,
                connect_timeout=self._limits.connect,
                login_timeout=self._limits.connect * 2,
                keepalive_interval=self._limits.keepalive,
                keepalive_count_max=self._limits.keepalives_missed,
            )
        except (asyncssh.Error, OSError, TimeoutError) as error:
            raise _unreachable(self._resource, endpoint, client, error) from error
        if not endpoint.host_keys and client.shown is not None:
            await asyncio.to_thread(self._learned, self._resource, client.shown)
        return _Link(connection)

    def _schedule_close(self) -> None:
        if self._closer is None:
            self._closer = asyncio.get_running_loop().call_later(self._limits.idle, self._close_idle)

    def _close_idle(self) -> None:
        self._closer = None
        before = time.monotonic() - self._limits.idle
        for link in self._links:
            if link.sessions == 0 and link.used <= before:
                link.connection.close()
                link.closing = True
        self._links = [link for link in self._links if link.alive]
        if self._links:
            self._schedule_close()


async def _communicate(process: asyncssh.SSHClientProcess[bytes], data: Data, resource: int) -> Raw:
    async def feed() -> None:
        # A command may end without reading all of its input.
        with contextlib.suppress(BrokenPipeError, ConnectionError, asyncssh.Error):
            async for piece in chunks(data):
                process.stdin.write(piece)
                await process.stdin.drain()
            process.stdin.write_eof()

    try:
        _, stdout, stderr = await asyncio.gather(feed(), collect(process.stdout.read), collect(process.stderr.read))
        await process.wait_closed()
    except (asyncssh.Error, OSError) as error:
        raise SessionLostError(f"the SSH session on resource {resource} broke off: {error}") from error
    status = process.returncode
    if status is None:
        raise SessionLostError(f"the SSH session on resource {resource} broke off before the command's end")
    return Raw(status, stdout, stderr)


def _unreachable(resource: int, endpoint: Endpoint, client: PinnedClient, error: BaseException) -> UnreachableError:
    where = f"{endpoint.name or f'resource {resource}'} at {endpoint.address} port {endpoint.port}"
    if isinstance(error, asyncssh.HostKeyNotVerifiable | asyncssh.KeyExchangeFailed):
        shown = f" (it shows {client.shown})" if client.shown else ""
        return UnreachableError(
            f"{where} does not show the SSH host key that is known for it{shown}: {error}",
            remedy="make sure that it is the right machine, then enter its new host key or let it register again",
        )
    if isinstance(error, asyncssh.PermissionDenied):
        return UnreachableError(
            f"{where} refuses the installation's SSH key",
            remedy="add the installation's public key to root's authorized_keys there",
        )
    return UnreachableError(f"{where} does not answer: {str(error) or type(error).__name__}")
