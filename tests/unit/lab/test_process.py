"""Processes are found again, and a recycled pid is never hit. With real processes."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from openqrm.admin.lab import process
from openqrm.admin.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[process.ProcessRecord]:
    record = process.spawn(["sleep", "60"], tag=tmp_path, log=tmp_path / "log")
    yield record
    process.stop(record)


def test_a_process_lives_until_it_is_stopped(sleeper: process.ProcessRecord) -> None:
    assert sleeper.alive()
    process.stop(sleeper, grace=5)
    assert not sleeper.alive()


def test_a_recycled_pid_is_neither_alive_nor_killed(sleeper: process.ProcessRecord) -> None:
    earlier = process.ProcessRecord(sleeper.pid, sleeper.start_ticks - 1)
    assert not earlier.alive()
    process.stop(earlier)
    process.send(earlier, signal.SIGKILL)
    assert sleeper.alive()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    record = process.spawn([sys.executable, "-c", code], tag=tmp_path, log=tmp_path / "log")
    while "ready" not in process.tail(tmp_path / "log"):
        assert record.alive()
    process.stop(record, grace=0.1)
    assert not record.alive()


def test_a_process_is_there_as_long_as_one_of_its_threads(tmp_path: Path) -> None:
    """Killed machines under load: the next one found their disks locked still."""
    program = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(60,)).start()\n"
    program += "ctypes.CDLL(None).pthread_exit(None)"
    record = process.spawn([sys.executable, "-c", program], tag=tmp_path, log=tmp_path / "log")
    stat = Path(f"/proc/{record.pid}/stat")
    deadline = time.monotonic() + 20
    while stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "its first thread does not end"
        time.sleep(0.02)
    assert record.alive()
    process.stop(record)
    assert not record.alive()


def test_processes_are_found_by_their_tag_without_a_record(sleeper: process.ProcessRecord, tmp_path: Path) -> None:
    assert list(process.tagged(tmp_path)) == [sleeper]
    assert list(process.tagged(tmp_path / "other")) == []


def test_the_environment_can_be_replaced(tmp_path: Path) -> None:
    log = tmp_path / "log"
    record = process.spawn(["/usr/bin/sleep", "60"], tag=tmp_path, log=log, env={"ONLY": "this"})
    environment = Path(f"/proc/{record.pid}/environ").read_bytes().split(b"\0")
    process.stop(record)
    assert set(environment) - {b""} == {b"ONLY=this", f"{process.TAG}={tmp_path}".encode()}


def test_listening_sees_a_listener_and_nothing_else(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert not process.listening(os.getpid(), port)
        server.listen()
        assert process.listening(os.getpid(), port)


def test_waiting_for_a_port_ends_when_the_process_does(tmp_path: Path) -> None:
    log = tmp_path / "log"
    record = process.spawn(["sh", "-c", "echo no luck; sleep 0.2; exit 1"], tag=tmp_path, log=log)
    with pytest.raises(LabError, match="no luck"):
        process.wait_for_port(record, 1, 10, "the server", log)


def test_a_failed_command_says_what_it_said() -> None:
    with pytest.raises(LabError, match=r"ls: .*missing"):
        process.run(["ls", "/missing"])
