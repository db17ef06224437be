"""The disk under the database is full: what cannot be stored is refused, what is stored stays, and it goes on later."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from openqrm.admin.demo import CommandError, log_in
from openqrm.admin.lab.datacentre import Lab, down
from openqrm.admin.lab.state import LabSpec
from openqrm.testing.site import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

MEGABYTES = 24


@pytest.fixture
def small(tmp_path: Path, bios: None) -> Iterator[Path]:
    """A file system of a few megabytes."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def lab(small: Path, tmp_path: Path) -> Iterator[Lab]:
    """A controller whose database is on that file system; no machines."""
    name = f"full-{os.getpid()}"
    database = f"sqlite:///{small}/openqrm.db"
    yield Lab.up(LabSpec(name=name, nodes=0, api_port=0, database_url=database), tmp_path / "lab")
    down(tmp_path / "lab", name)


def fill(small: Path) -> Path:
    """Take all that is free, to the last block."""
    ballast = small / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


def test_a_full_disk_refuses_loses_nothing_and_goes_on(small: Path, lab: Lab) -> None:
    cli, _ = log_in(lab)
    made: list[str] = []

    def make(name: str) -> None:
        number = len(made)
        where = ("--mac", f"52:54:00:aa:00:{number:02x}", "--address", f"192.0.2.{number + 1}")
        cli("resource", "create", "--name", name, *where, quiet=True)
        made.append(name)

    make("first")
    ballast = fill(small)
    refused: CommandError | None = None
    for number in range(100):  # the write-ahead log has room of its own for a while
        try:
            make(f"box{number}")
        except CommandError as error:
            refused = error
            break
    assert refused is not None, "a hundred records fitted on a full disk"
    assert refused.code == 6, refused
    assert refused.problem["status"] == 503
    assert "full" in refused.problem["detail"] or "space" in refused.problem["detail"], refused.problem
    listed = cli("resource", "list", "--type", "closed", "--all", quiet=True)["items"]
    assert {item["name"] for item in listed} == set(made), "what was answered is there, and nothing else"

    ballast.unlink()

    def works() -> bool:
        with contextlib.suppress(CommandError):
            make("after")
        return "after" in made

    eventually(works, 30, "records again once there is room")
    lab.stop_controller(kill=True)
    lab.start_controller()
    listed = cli("resource", "list", "--type", "closed", "--all", quiet=True)["items"]
    assert {item["name"] for item in listed} == set(made)
