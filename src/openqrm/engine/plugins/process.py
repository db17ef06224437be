"""One server process of a plug-in: started in its own session, its output kept in rotated files, ended as a group.

Processes die with the controller (`setpriv --pdeathsig`), since nobody would watch them. What survives all the same,
for example a helper that the process forked, is found by its recorded process id *and* start time, and ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openqrm.plugin_api.plugin import ServiceCommand

LOG_BYTES = 4 << 20
LOG_FILES = 4
"""Rotated files kept beside the current one."""
STOP_SECONDS = 10.0
"""How long a process may take to end by itself before it is killed."""
LAST_LINES = 8


@dataclass
class Log:
    """A log file with rotation, and its last lines for messages."""

    path: Path
    last: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))

    def mark(self, line: str) -> None:
        """Append a line of our own."""
        self._append(f"{line}\n".encode())

    def write(self, data: bytes) -> None:
        """Append what the process printed."""
        self.last.extend(line for line in data.decode(errors="replace").splitlines() if line.strip())
        self._append(data)

    def _append(self, data: bytes) -> None:
        """The file is rotated when it is full. What a full disk does not take is lost, and the process goes on."""
        with contextlib.suppress(OSError):
            if self.path.exists() and self.path.stat().st_size + len(data) > LOG_BYTES:
                self._rotate()
            with self.path.open("ab") as file:
                file.write(data)

    def _rotate(self) -> None:
        for number in range(LOG_FILES - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            if older.exists():
                older.replace(self.path.with_name(f"{self.path.name}.{number + 1}"))
        self.path.replace(self.path.with_name(f"{self.path.name}.1"))


@dataclass(frozen=True)
class Recorded:
    """A process by id and start time (clock ticks since boot, proc(5) stat field 22), so that no recycled id is hit."""

    pid: int
    started: int
    boot: str
    """Boot id of the server: after a restart of it all ids mean others."""

    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        return self.boot == _boot() and _started(self.pid) == self.started

    def left_something(self) -> bool:
        """Whether it, or what it forked, still runs.

        The id of a dead leader is not given to another process while its group lives, so a living group without its
        leader is still ours.
        """
        return self.alive() or (self.boot == _boot() and _started(self.pid) is None and _group_members(self.pid))


def recorded(path: Path) -> Recorded | None:
    """What was recorded at the last start, if anything."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        return Recorded(int(body["pid"]), int(body["started"]), str(body["boot"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _record(path: Path, pid: int, argv: tuple[str, ...]) -> None:
    body = {"pid": pid, "started": _started(pid) or 0, "boot": _boot(), "argv": list(argv)}
    path.write_text(json.dumps(body), encoding="utf-8")


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _started(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the command's name may hold blanks and parentheses
    return None if fields[0] in "ZX" else int(fields[19])


def _group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _group_members(pid: int) -> bool:
    """Whether a process of the session that `pid` leads still runs."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _session(int(entry.name)) == pid and _started(int(entry.name)) is not None:
            return True
    return False


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


async def end_leftover(path: Path) -> bool:
    """End what an earlier controller left running under this record; whether there was something."""
    before = recorded(path)
    found = before is not None and before.left_something()
    if before is not None and found:
        await _end_group(before.pid)
    _forget(path)
    return found


async def _end_group(pid: int, grace: float = STOP_SECONDS) -> None:
    _group(pid, signal.SIGTERM)
    for _ in range(int(grace / 0.05)):  # not our child: nothing tells us when it ends
        if not _group_members(pid):
            return
        await asyncio.sleep(0.05)
    _group(pid, signal.SIGKILL)


@dataclass
class Child:
    """A process that runs."""

    process: asyncio.subprocess.Process
    record: Path
    log: Log
    _reader: asyncio.Task[None]

    @property
    def pid(self) -> int:
        """Its process id, which is its session's too."""
        return self.process.pid

    async def wait(self) -> int:
        """Its exit status, once it ended and all it printed is in the log."""
        status = await self.process.wait()
        _group(self.pid, signal.SIGKILL)  # what it forked must not hold its ports when it is started again
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._reader), 2)
        self._reader.cancel()
        _forget(self.record)
        return status

    async def stop(self) -> None:
        """Ask it to end, then kill it and all it forked."""
        _group(self.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
        _group(self.pid, signal.SIGKILL)
        await self.wait()


async def spawn(command: ServiceCommand, record: Path, log: Log) -> Child:
    """Start a process; OSError when it cannot be started."""
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", "--", *command.argv),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | command.environment,
        cwd=command.directory,
        start_new_session=True,
    )
    try:
        _record(record, process.pid, command.argv)
    except OSError:
        _group(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    log.mark(f"--- {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} started: {' '.join(command.argv)}")
    return Child(process, record, log, asyncio.create_task(_copy(process, log)))


async def _copy(process: asyncio.subprocess.Process, log: Log) -> None:
    assert process.stdout is not None  # noqa: S101 - asked for a pipe in `spawn`
    while data := await process.stdout.read(65536):
        log.write(data)
