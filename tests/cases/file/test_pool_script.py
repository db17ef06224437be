"""The script of the pool, run on this machine: disk images are written as they are, and facts tell what is left."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from openqrm.plugin_api.script_pool import parse
from openqrm.plugin_api.scripts import script
from openqrm.plugins.storage.file.driver import FilePool
from openqrm.testing import needs

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
SIGNATURE = b"\x55\xaa"
"""At the end of the first sector of a disk with a partition table."""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-s", "--", *words],
        input=script(FilePool.package, *FilePool.scripts),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """With the empty volume `web`, number 7, of 4 MB."""
    directory = tmp_path / "pool"
    directory.mkdir()
    made = run("create", str(directory), "web", "7", "4")
    assert made.returncode == 0, made.stderr
    return directory


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A raw disk of 2 MB with a partition table and something on it."""
    needs.have("qemu-img")
    path = tmp_path / "disk"
    path.write_bytes(b"boot".ljust(510, b"\0") + SIGNATURE + os.urandom(2 * MIB - 512))
    return path


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_disk_image_is_the_volume_as_it_is(pool: Path, disk: Path, kind: str) -> None:
    given = disk.with_suffix(f".{kind}")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", kind, str(disk), str(given)], check=True)
    filled = run("fill", str(pool), "web", "7", "4", str(given))
    assert filled.returncode == 0, filled.stderr
    volume = (pool / "web.img").read_bytes()
    assert len(volume) == 4 * MIB
    assert volume[: 2 * MIB] == disk.read_bytes()
    assert not any(volume[2 * MIB :])


def test_a_disk_that_is_larger_than_the_volume(pool: Path, disk: Path) -> None:
    with disk.open("ab") as file:
        file.truncate(5 * MIB)
    filled = run("fill", str(pool), "web", "7", "4", str(disk))
    assert filled.returncode == 1
    assert "which is larger than" in filled.stderr
    assert not any((pool / "web.img").read_bytes())
    assert parse(run("facts", str(pool)).stdout).leftovers == ()


def test_a_disk_that_needs_a_file_of_the_host(pool: Path, disk: Path) -> None:
    """It would be read into the volume, whatever it is."""
    given = disk.with_suffix(".qcow2")
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(disk), str(given)]
    subprocess.run(command, check=True)
    filled = run("fill", str(pool), "web", "7", "4", str(given))
    assert filled.returncode == 1
    assert "needs another file" in filled.stderr
    assert not any((pool / "web.img").read_bytes())


def test_two_that_are_made_at_once_are_not_promised_the_same_room(pool: Path) -> None:
    free = parse(run("facts", str(pool)).stdout).free_mb
    each = str(free * 2 // 3)
    words = ["sh", "-c", script(FilePool.package, *FilePool.scripts), "pool", "create", str(pool)]
    started = [
        subprocess.Popen([*words, name, number, each, "within"], stderr=subprocess.PIPE, text=True)
        for name, number in (("one", "8"), ("two", "9"))
    ]
    said = [one.communicate(timeout=60)[1] for one in started]
    assert sorted(one.returncode for one in started) == [0, 1]
    assert "there is no room for" in "".join(said)


def test_facts_say_what_is_there_and_what_is_left(pool: Path) -> None:
    old, running = pool / ".openqrm-probe.old", pool / ".openqrm-probe.new"
    old.mkdir()
    running.mkdir()
    os.utime(old, (0, 0))
    (pool / ".openqrm/new/half").touch()
    (pool / ".openqrm/made/gone").write_text("8\n")
    found = parse(run("facts", str(pool)).stdout)
    assert (found.volumes, found.used) == ({"web": 4}, {"web": 0})
    notes = {str(pool / ".openqrm" / name) for name in ("new/half", "made/gone")}
    assert set(found.leftovers) == {str(old)} | notes
    assert {path.name for path in pool.iterdir()} == {".openqrm", "web.img", old.name, running.name}


def test_a_volume_of_another_record_is_left_alone(pool: Path) -> None:
    for words in (("create", "8", "4"), ("clone", "8", "4", str(pool / "web.img")), ("fill", "8", "4", "/none")):
        verb, number, *rest = words
        refused = run(verb, str(pool), "web", number, *rest)
        assert refused.returncode == 1
        assert "was not made for volume 8" in refused.stderr
    assert run("undo", str(pool), "web", "8", "4").returncode == 0
    assert (pool / "web.img").exists()
    assert run("undo", str(pool), "web", "7", "4").returncode == 0
    assert [path.name for path in pool.iterdir()] == [".openqrm"]
