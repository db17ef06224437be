"""Processes of a lab: started detached, recorded so that a recycled pid is never killed, and found again.

Every process carries ``OPENQRM_LAB=<state directory>`` in its environment. It is found by that even when `lab up` was
killed between starting and recording it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TAG = "OPENQRM_LAB"

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Processes started by this very process: polled so that they do not stay zombies."""


@dataclass(frozen=True)
class ProcessRecord:
    """A process by pid *and* start time (clock ticks since boot, field 22 of proc(5) stat)."""

    pid: int
    start_ticks: int

    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        child = _children.get(self.pid)
        if child is not None and child.poll() is not None:
            _children.pop(self.pid, None)
        stat = _stat(self.pid)
        return stat is not None and stat == ("run", self.start_ticks)


def _stat(pid: int) -> tuple[str, int] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the command name may hold blanks and parentheses
    return ("gone" if fields[0] in "ZX" and not _has_threads(pid) else "run", int(fields[19]))


def _has_threads(pid: int) -> bool:
    """Whether a process whose first thread has ended still has others, and with them its open files and locks."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except OSError:
        return False


def record_of(pid: int) -> ProcessRecord | None:
    """The record of a running process, or None when there is none."""
    stat = _stat(pid)
    return ProcessRecord(pid, stat[1]) if stat is not None and stat[0] == "run" else None


def spawn(argv: Sequence[str], *, tag: Path, log: Path, env: Mapping[str, str] | None = None) -> ProcessRecord:
    """Start `argv` detached, stdin from /dev/null, output appended to `log`; `env` replaces this process's environment.

    Raises LabError if it ends at once.
    """
    environment = {**(os.environ if env is None else env), TAG: str(tag)}
    with log.open("ab") as output:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
        )
    _children[child.pid] = child
    record = record_of(child.pid)
    while record is not None and not _is_tagged(record.pid, tag):  # within exec it has no environment yet
        time.sleep(0.001)
        record = record_of(child.pid)
    if record is None:
        raise LabError(f"{argv[0]} ended at once; see {log}:\n{tail(log)}")
    return record


def tail(log: Path, lines: int = 5) -> str:
    """The last lines of a log, for an error message."""
    with contextlib.suppress(OSError):
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    return ""


def wait_until_gone(record: ProcessRecord, seconds: float) -> bool:
    """Wait up to `seconds` for a process to end."""
    deadline = time.monotonic() + seconds
    while record.alive():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def send(record: ProcessRecord, number: signal.Signals) -> None:
    """Send a signal to exactly this process: through a pidfd, so that a recycled pid cannot be hit."""
    try:
        descriptor = os.pidfd_open(record.pid)
    except OSError:
        return
    try:
        if record.alive():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)


def stop(record: ProcessRecord, grace: float = 0.0) -> None:
    """End a process: SIGTERM and `grace` seconds first, if any, then SIGKILL. Raises LabError if it survives."""
    if grace > 0:
        send(record, signal.SIGTERM)
        if wait_until_gone(record, grace):
            return
    send(record, signal.SIGKILL)
    if not wait_until_gone(record, 10):
        raise LabError(f"process {record.pid} does not end, not even when killed")


def _is_tagged(pid: int, tag: Path) -> bool:
    try:
        return f"{TAG}={tag}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def tagged(tag: Path) -> Iterator[ProcessRecord]:
    """Every running process of the lab whose state directory is `tag`, except this one."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        if _is_tagged(int(entry.name), tag):
            record = record_of(int(entry.name))
            if record is not None:
                yield record


def children_of(pid: int) -> list[int]:
    """Pids of the direct children of a process."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def listening(pid: int, port: int) -> bool:
    """Whether any TCP socket listens on `port` in the network namespace of process `pid` (proc(5) net/tcp)."""
    suffix = f":{port:04X}"
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[1].endswith(suffix) and fields[3] == "0A":
                    return True
    return False


def wait_for_port(record: ProcessRecord, port: int, seconds: float, what: str, log: Path) -> None:
    """Wait until `port` listens in the process's namespace. Raises LabError when it died or the time is over."""
    deadline = time.monotonic() + seconds
    while not listening(record.pid, port):
        if not record.alive():
            raise LabError(f"{what} ended; see {log}:\n{tail(log)}")
        if time.monotonic() > deadline:
            raise LabError(f"{what} did not listen on port {port} within {seconds:g} s; see {log}:\n{tail(log)}")
        time.sleep(0.05)


def run(argv: Sequence[str], *, stdin: str = "") -> str:
    """Run a short command and return its output. Raises LabError with what it said on stderr."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{argv[0]}: {error}") from error
    if done.returncode:
        raise LabError(f"`{' '.join(argv)}` failed ({done.returncode}): {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
