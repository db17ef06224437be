"""The storage machine's command line, its place in the network, and what its console has to say before it is ready."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from openqrm.admin.lab import network
from openqrm.admin.lab.errors import LabError
from openqrm.admin.lab.process import ProcessRecord, record_of
from openqrm.admin.lab.state import LabSpec
from openqrm.admin.lab.storage_machine import StorageMachine

if TYPE_CHECKING:
    from pathlib import Path

SPEC = LabSpec(name="x", storage_machine=True)


@pytest.fixture
def machine(tmp_path: Path) -> StorageMachine:
    made = StorageMachine(tmp_path, SPEC)
    made.home.mkdir()
    made.host_key.write_text("ssh-ed25519 AAAA storage2\n")
    return made


@pytest.fixture
def here() -> ProcessRecord:
    """A process that runs: this one."""
    record = record_of(os.getpid())
    assert record is not None
    return record


def test_it_is_plugged_in_only_where_it_was_asked_for() -> None:
    assert "link set tapstorage master br0 up" in network.plan(SPEC)
    assert not any("tapstorage" in line for line in network.plan(LabSpec(name="x")))
    assert network.MACHINE_MAC not in {network.STORAGE_MAC, *(network.node_mac(each) for each in range(1, 65))}


def test_its_volumes_are_on_a_disk_without_a_cache(machine: StorageMachine) -> None:
    line = " ".join(machine.arguments("tcg"))
    assert f"id=d1,format=raw,cache=unsafe,discard=unmap,file={machine.home}/volumes.raw" in line
    assert f"id=d0,format=qcow2,cache=unsafe,discard=unmap,file={machine.home}/root.qcow2" in line
    assert "ifname=tapstorage" in line
    assert f"mac={network.MACHINE_MAC}" in line


def test_words_reach_it_as_they_are(machine: StorageMachine, tmp_path: Path) -> None:
    words = ["sh", "-c", 'echo "$1"; echo $HOME', "it's", "a  b"]
    argv = machine.ssh(tmp_path / "key", *words)
    assert argv[:4] == ["ip", "netns", "exec", "openqrm-x"]
    assert shlex.split(argv[-1]) == words
    done = subprocess.run(["sh", "-c", argv[-1]], capture_output=True, text=True, check=True, env={"HOME": "/h"})
    assert done.stdout == "a  b\n/h\n"
    assert (machine.home / "known_hosts").read_text() == "10.99.0.3 ssh-ed25519 AAAA\n"


def test_what_an_earlier_start_said_does_not_make_it_ready(machine: StorageMachine, here: ProcessRecord) -> None:
    said = b"storage [3.1] ready\r\n"
    machine.serial_log.write_bytes(said)
    (machine.home / "started-at").write_text(str(len(said)))
    with pytest.raises(LabError, match=r"not ready within 0\.2 s"):
        machine.wait_until_ready(here, 0.2)
    machine.serial_log.write_bytes(said * 2)
    machine.wait_until_ready(here, 0.2)


def test_one_that_ended_is_not_waited_for(machine: StorageMachine) -> None:
    machine.serial_log.write_bytes(b"Kernel panic\r\n")
    (machine.home / "started-at").write_text("0")
    with pytest.raises(LabError, match="Kernel panic"):
        machine.wait_until_ready(ProcessRecord(2**22 + 1, 1), 60)
