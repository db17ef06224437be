"""The virtual datacentre as it really runs: a storage host that serves, nodes that boot, nothing left after."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from openqrm.admin.lab import network
from openqrm.admin.lab.datacentre import Lab, down
from openqrm.admin.lab.errors import LabError
from openqrm.admin.lab.state import LabSpec
from openqrm.testing import needs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "selftest"
SPEC = LabSpec(name=NAME, nodes=1, with_controller=False)

pytestmark = pytest.mark.lab


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    needs.lab()
    place = Path("/tmp") / f"openqrm-{NAME}"  # short: Unix sockets have short paths
    down(place, NAME)
    yield place
    down(place, NAME)


def trace(place: Path) -> dict[str, object]:
    """What a lab leaves on a machine, if it leaves anything."""
    tagged = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"OPENQRM_LAB={place}".encode() in (entry / "environ").read_bytes():
                tagged.append(entry.name)
        except OSError:
            continue
    loops = [file.read_text().strip() for file in Path("/sys/block").glob("loop*/loop/backing_file")]
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return {
        "processes": tagged,
        "namespaces": [path.name for path in Path("/run/netns").glob(f"*{NAME}*")],
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if NAME in line],
        "loops": [loop for loop in loops if NAME in loop],
        "links": [line.split()[1] for line in links.splitlines()],
        "directory": place.exists(),
    }


def eventually(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_nothing_is_left_after_down(directory: Path) -> None:
    before = trace(directory)
    lab = Lab.up(SPEC, directory, power_on=True)
    assert lab.status().nodes[0].power == "on"
    lab.down()
    assert trace(directory) == before


def test_nothing_is_left_after_everything_was_killed(directory: Path) -> None:
    before = trace(directory)
    lab = Lab.up(SPEC, directory, power_on=True)
    for record in lab.state.processes.values():
        os.kill(record.pid, signal.SIGKILL)
    eventually(lambda: not any(lab.status().services.values()), 5, "a killed service still runs")
    down(directory, NAME)
    assert trace(directory) == before


@pytest.mark.parametrize("delay", [0.1, 0.2, 0.3, 0.5])
def test_an_up_that_was_killed_is_cleaned_by_the_next_up(directory: Path, delay: float) -> None:
    before = trace(directory)
    argv = [sys.executable, "-m", "openqrm.admin.lab.command", "up", "--name", NAME, "--dir", str(directory)]
    with subprocess.Popen([*argv, "--no-controller", "--power-on"], stdout=subprocess.DEVNULL) as starting:
        time.sleep(delay)
        starting.kill()
    try:
        lab = Lab.up(SPEC, directory)
    except LabError as error:
        assert "up already" in str(error)  # it was quicker than the kill  # noqa: PT017 - one of two right outcomes
        lab = Lab.open(directory)
    assert all(lab.status().services.values())
    lab.down()
    assert trace(directory) == before


def test_a_lost_state_file_does_not_lose_the_processes(directory: Path) -> None:
    before = trace(directory)
    Lab.up(SPEC, directory, power_on=True)
    (directory / "lab.json").unlink()
    down(directory, NAME)
    assert trace(directory) == before


def test_a_second_lab_of_the_same_name_is_refused_and_the_first_unharmed(directory: Path, tmp_path: Path) -> None:
    lab = Lab.up(SPEC, directory)
    with pytest.raises(LabError, match="up already"):
        Lab.up(SPEC, directory)
    with pytest.raises(LabError, match="another lab named"):
        Lab.up(SPEC, tmp_path / "other")
    with pytest.raises(LabError, match="another lab named"):
        down(tmp_path / "other", NAME)
    assert all(lab.status().services.values())


def test_the_storage_host_is_a_machine_of_its_own(directory: Path) -> None:
    lab = Lab.up(SPEC, directory)
    key = lab.controller.installation_key
    ssh = (
        "ssh",
        "-i",
        str(key),
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "LogLevel=ERROR",
    )
    remote = f"root@{network.STORAGE_ADDRESS}"
    assert lab.inside(*ssh, remote, "hostname").strip() == "storage"
    with pytest.raises(LabError, match="Read-only"):
        lab.inside(*ssh, remote, "touch /usr/bin/intruder")
    lab.inside(*ssh, remote, "mkdir /srv/openqrm/v /var/lib/openqrm/x; echo 1 > /srv/openqrm/v/a")
    assert not Path("/var/lib/openqrm/x").exists()
    export = (
        "EXPORT { Export_Id = 7; Path = /srv/openqrm/v; Pseudo = /v; Protocols = 4; FSAL { Name = VFS; } "
        "CLIENT { Clients = 10.99.0.20; Access_Type = RW; } }"
    )
    lab.inside(*ssh, remote, f"echo '{export}' > /etc/ganesha/exports.d/v.conf")
    manager = "--dest org.ganesha.nfsd --object-path /org/ganesha/nfsd/ExportMgr --method org.ganesha.nfsd.exportmgr"
    call = f"gdbus call --system {manager}"
    lab.inside(*ssh, remote, f"{call}.AddExport /etc/ganesha/exports.d/v.conf 'EXPORT(Export_Id=7)'")
    assert "/srv/openqrm/v" in lab.inside(*ssh, remote, f"{call}.ShowExports")
    lab.power("storage", "off")
    with pytest.raises(LabError):
        lab.inside(*ssh, "-o", "ConnectTimeout=1", remote, "true")
    lab.power("storage", "on")
    assert "/srv/openqrm/v" in lab.inside(*ssh, remote, f"{call}.ShowExports")
    assert lab.inside(*ssh, remote, "cat /srv/openqrm/v/a").strip() == "1"


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_a_node_asks_for_dhcp_and_obeys_power(directory: Path, firmware: str) -> None:
    needs.lab("uefi" if firmware == "uefi" else "bios")
    lab = Lab.up(
        LabSpec(name=NAME, nodes=1, firmware="uefi" if firmware == "uefi" else "bios", with_controller=False), directory
    )
    sign = ">>Start PXE over IPv4" if firmware == "uefi" else "Configuring (net0 52:54:00:99:00:01)"
    log = lab.node("node1").serial_log
    lab.power("node1", "on")
    eventually(lambda: sign in log.read_text(errors="replace"), 90, f"no {sign!r} on the console")
    pid = lab.status().nodes[0].pid
    lab.power("node1", "reset")
    eventually(lambda: log.read_text(errors="replace").count(sign) == 2, 90, "no second start after the reset")
    assert lab.status().nodes[0].pid == pid
    lab.power("node1", "off")
    assert lab.status().nodes[0].power == "off"
    with pytest.raises(LabError, match="is off"):
        lab.power("node1", "reset")


ECHO = ("socat", "UNIX-LISTEN:{socket},fork", "EXEC:cat")
"""Stands in for the controller: answers what it is told."""


def ask(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"hello")
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").read()


def test_the_controllers_socket_is_forwarded_also_after_it_was_killed(directory: Path) -> None:
    before = trace(directory)
    lab = Lab.up(LabSpec(name=NAME, nodes=0, api_port=0, controller_command=ECHO), directory)
    assert ask(lab.state.api_port) == b"hello"
    lab.stop_controller(kill=True)
    assert lab.status().services == {"storage": True, "controller": False, "forward": True}
    lab.start_controller()
    assert ask(lab.state.api_port) == b"hello"
    lab.down()
    assert trace(directory) == before


def test_a_start_that_fails_says_why_keeps_the_logs_and_nothing_else(directory: Path) -> None:
    before = trace(directory)
    with pytest.raises(LabError, match=r"did not come up(?s:.)*out of luck"):
        Lab.up(LabSpec(name=NAME, nodes=0, controller_command=("sh", "-c", "echo out of luck; sleep 1")), directory)
    assert "out of luck" in (directory / "controller/controller.log").read_text()
    down(directory, NAME)
    assert trace(directory) == before


def test_a_taken_port_is_named(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LabError, match=f"{port} cannot be forwarded .*use another --port"):
            Lab.up(LabSpec(name=NAME, nodes=0, api_port=port, controller_command=ECHO), directory)
