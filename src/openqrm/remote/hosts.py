"""Commands and files on resources: the implementation of the engine's `Hosts` port."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import asyncssh

from openqrm.domain.errors import CommandFailedError, InvalidError, OpenqrmError, TimeoutPassedError
from openqrm.engine import commandlog
from openqrm.engine.ports import Finished, GateToken, Ready
from openqrm.remote import files
from openqrm.remote import gate as host_gate
from openqrm.remote.channel import GRACE, KILL_AFTER, TIMED_OUT, Channel, Raw, SessionLostError, limited
from openqrm.remote.connections import DEFAULT_LIMITS, Limits, SshChannel
from openqrm.remote.local import LocalChannel

if TYPE_CHECKING:
    from openqrm.remote.endpoint import Learned, Lookup

SERVER = 0
"""Resource 0 is the server itself; its commands are children of this process."""
RECONNECTS = 3
"""How often a gated command whose session broke off is asked for again, under the same key."""
PROGRESS_SECONDS = 10
"""How long a host may take to say how far a command is."""
SUPERSEDED_WAIT = 0.05
"""Seconds before a command that another one overtook queues again."""


class RemoteHosts:
    """SSH to resources, child processes for resource 0; both behind the same gate.

    One event loop uses an instance. `gate_directory` is on each resource, `local_gate` on the server.
    """

    def __init__(
        self,
        *,
        lookup: Lookup,
        learned: Learned,
        key_file: Path,
        local_gate: Path,
        gate_directory: str = host_gate.DIRECTORY,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        asyncssh.set_log_level("WARNING")
        self._lookup = lookup
        self._learned = learned
        self._key_file = key_file
        self._directories = {SERVER: str(local_gate)}
        self._gate_directory = gate_directory
        self._limits = limits
        self._channels: dict[int, Channel] = {SERVER: LocalChannel()}
        self._gated: set[int] = set()
        self._installing: dict[int, asyncio.Lock] = {}

    async def run(self, host: int, command: Ready, *, gate: GateToken | None, seconds: float) -> Finished:
        """Run to the end, and log it. Known secrets are masked in what comes back.

        UnreachableError (also for a host key that is not the pinned one, and for a gated command whose end nobody
        saw), TimeoutPassedError after `seconds`, StaleError when the gate refuses.
        """
        with _Logged(host, command, gate) as logged:
            raw = await self._bounded(host, command, gate, seconds)
            logged.status = raw.status
        return Finished(raw.status, _text(raw.stdout, command), _text(raw.stderr, command))

    async def read_file(self, host: int, path: str, *, seconds: float) -> tuple[str, str] | None:
        """Content and mode of a file, or None when there is none. CommandFailedError when it cannot be read as text."""
        finished = await self.run(host, Ready(files.read_argv(path)), gate=None, seconds=seconds)
        return files.parse_read(host, path, finished)

    async def write_file(
        self, host: int, path: str, content: str | None, mode: str, *, gate: GateToken | None, seconds: float
    ) -> None:
        """Replace a file atomically and on disk; `None` removes it. CommandFailedError when the host cannot."""
        if not path.startswith("/") or "\0" in path:
            raise InvalidError(f"{path!r} is not an absolute path", field="path")
        finished = await self.run(host, files.write_command(path, content, mode), gate=gate, seconds=seconds)
        if finished.status:
            output = (finished.stderr or finished.stdout).strip()
            raise CommandFailedError(
                f"cannot write {path} on resource {host}", exit_status=finished.status, output=output
            )

    async def send_file(self, host: int, source: str, path: str, *, seconds: float) -> None:
        """Copy a file of the server, streamed; it appears under its name when it is whole. CommandFailedError."""
        file = Path(source)
        if not await asyncio.to_thread(file.is_file):
            raise InvalidError(f"{source} is not a file on the server", field="archive")
        command = Ready(files.receive_argv(path, (await asyncio.to_thread(file.stat)).st_size))
        with _Logged(host, command, None) as logged:
            try:
                async with asyncio.timeout(seconds + GRACE):
                    raw = await self._channel(host).execute(limited(command.argv, seconds), file)
            except TimeoutError:
                raise TimeoutPassedError(
                    f"sending {source} to resource {host} took longer than {seconds:g} s"
                ) from None
            logged.status = raw.status
        if raw.status:
            raise CommandFailedError(
                f"cannot send {source} to {path} on resource {host}",
                exit_status=raw.status,
                output=raw.stderr.decode(errors="replace").strip(),
            )

    async def progress(self, host: int, gate: GateToken) -> tuple[int, str] | None:
        """How far the command that runs under this token says it is: percent and a text.

        None when it has not said, and when the host does not answer just now.
        """
        argv = limited(host_gate.progress_argv(self._directory(host), gate), PROGRESS_SECONDS)
        try:
            async with asyncio.timeout(PROGRESS_SECONDS + GRACE):
                raw = await self._channel(host).execute(argv, b"")
        except (TimeoutError, OpenqrmError):
            return None
        return host_gate.parse_progress(raw.stdout)

    async def recorded(self, host: int, *, seconds: float) -> dict[str, tuple[int, int]]:
        """The highest (generation, epoch) that the host's gate has seen, by volume.

        After our database is restored from a backup, or a new installation takes a used storage host over, its
        generations and its epoch counter must be raised above these before anything is served: whatever is lower is
        refused. UnreachableError, TimeoutPassedError, CommandFailedError.
        """
        await self._install(host)
        argv = host_gate.highest_argv(self._directory(host))
        finished = await self.run(host, Ready(argv), gate=None, seconds=seconds)
        if finished.status:
            raise CommandFailedError(
                f"cannot read the records of the host gate on resource {host}",
                exit_status=finished.status,
                output=finished.stderr,
            )
        return host_gate.parse_highest(finished.stdout)

    async def forget(self, host: int) -> None:
        """Close the connections to a resource, for example when it registered anew with other host keys."""
        self._gated.discard(host)
        channel = self._channels.pop(host, None) if host != SERVER else None
        if channel is not None:
            await channel.close()

    async def close(self) -> None:
        """Close all connections."""
        for host in list(self._channels):
            await self.forget(host)

    def _channel(self, host: int) -> Channel:
        if host not in self._channels:
            self._channels[host] = SshChannel(host, self._lookup, self._learned, self._key_file, self._limits)
        return self._channels[host]

    async def _bounded(self, host: int, command: Ready, gate: GateToken | None, seconds: float) -> Raw:
        try:
            async with asyncio.timeout(seconds + KILL_AFTER + GRACE):
                if gate is not None:
                    return await self._through_gate(host, command, gate, seconds)
                return await self._plain(host, command, seconds)
        except TimeoutError:
            if gate is not None:
                await self._cancel(host, gate)
            raise TimeoutPassedError(f"{command.argv[0]} on resource {host} took longer than {seconds:g} s") from None

    async def _plain(self, host: int, command: Ready, seconds: float) -> Raw:
        began = time.monotonic()
        raw = await self._channel(host).execute(limited(command.argv, seconds), _input(command))
        ended_by_limit = raw.status in (TIMED_OUT, 128 + 9, 128 + 15, -9, -15)
        if ended_by_limit and time.monotonic() - began >= seconds:
            raise TimeoutPassedError(f"{command.argv[0]} on resource {host} took longer than {seconds:g} s")
        return raw

    async def _through_gate(self, host: int, command: Ready, gate: GateToken, seconds: float) -> Raw:
        data = _input(command)
        argv = host_gate.run_argv(self._directory(host), gate, command.argv, data, seconds)
        lost = 0
        while True:
            try:
                raw, answer = await self._ask_gate(host, argv, data)
            except SessionLostError:
                lost += 1
                if lost > RECONNECTS:
                    raise
                await asyncio.sleep(0.1 * lost)
                continue
            if answer.word == "ended":
                return Raw(raw.status, raw.stdout, answer.stderr)
            if answer.word != "superseded":
                raise host_gate.refusal(answer, host, gate)
            await asyncio.sleep(SUPERSEDED_WAIT)

    async def _ask_gate(self, host: int, argv: tuple[str, ...], data: bytes) -> tuple[Raw, host_gate.Answer]:
        await self._install(host)
        raw = await self._channel(host).execute(argv, data)
        answer = host_gate.understand(raw)
        if answer is None:
            self._gated.discard(host)  # it is not there (a machine installed anew), or it was killed
            said = raw.stderr.decode(errors="replace").strip()[-500:]
            raise SessionLostError(f"the host gate on resource {host} gave no answer: {said}")
        return raw, answer

    async def _install(self, host: int) -> None:
        """Bring the gate to a host that this process has not used yet, or whose gate did not answer."""
        async with self._installing.setdefault(host, asyncio.Lock()):
            if host in self._gated:
                return
            argv = limited(host_gate.install_argv(self._directory(host)), 30)
            raw = await self._channel(host).execute(argv, host_gate.script())
            if raw.status:
                raise CommandFailedError(
                    f"cannot install the host gate on resource {host}",
                    exit_status=raw.status,
                    output=raw.stderr.decode(errors="replace"),
                    remedy=f"{self._directory(host)} must be writable there",
                )
            self._gated.add(host)

    async def _cancel(self, host: int, gate: GateToken) -> None:
        """End a command that ran out of time; if the host cannot be reached, its own limit ends it."""
        argv = limited(host_gate.cancel_argv(self._directory(host), gate), 30)
        try:
            async with asyncio.timeout(GRACE):
                await self._channel(host).execute(argv, b"")
        except (TimeoutError, OpenqrmError):
            commandlog.LOGGER.warning("the command for %s on resource %d could not be ended", gate.volume, host)

    def _directory(self, host: int) -> str:
        return self._directories.get(host, self._gate_directory)


@dataclass
class _Logged:
    """Logs a command at the end of a block, however it ends; the block sets `status`."""

    host: int
    command: Ready
    gate: GateToken | None
    status: int | None = None
    began: float = field(default_factory=time.monotonic)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        outcome = "ended" if error is None else error.code if isinstance(error, OpenqrmError) else "cancelled"
        spent = time.monotonic() - self.began
        commandlog.record(self.host, self.command, self.gate, outcome=outcome, status=self.status, seconds=spent)


def _input(command: Ready) -> bytes:
    return (command.input or "").encode()


def _text(output: bytes, command: Ready) -> str:
    return commandlog.masked(output.decode(errors="replace"), command.secrets)
