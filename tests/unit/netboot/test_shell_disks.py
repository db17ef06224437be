"""Whole disks, taken into an image and written from it, with files in place of disks."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

HOOK = Path(__file__).parents[3] / "src/openqrm/plugins/storage/local_storage/node/root-mount"
PIECE = 16 << 20
STUBS = """
refuse() { echo "refused: $*"; exit 1; }
say() { :; }
log() { :; }
need_programs() { :; }
rt() { "$@"; }
blockdev() { :; }
ID=1
"""


@pytest.fixture
def disks(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "image").mkdir()
    return tmp_path


def disk(where: Path, name: str, content: bytes, size: int) -> str:
    """A file as a disk: its line of `own_disks`. The scripts look below /dev, which `..` leads out of."""
    file = where / name
    file.write_bytes(content)
    os.truncate(file, size)
    return f"..{file} {size}"


def run(where: Path, own: list[str], call: str) -> str:
    hook = HOOK.read_text().replace("/run/openqrm", str(where / "run"))
    own_disks = "own_disks() {\n" + "".join(f"echo '{line}'\n" for line in own) + "}\n"
    script = f"{STUBS}{hook}\n{own_disks}{call} {where / 'image'}\n"
    done = subprocess.run(["sh", "-s"], input=script, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 or "refused" in done.stdout, done.stderr
    return done.stdout


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def test_what_was_grabbed_is_deployed_byte_for_byte_and_empty_pieces_take_nothing(disks: Path) -> None:
    size = 2 * PIECE + 5000
    written = content(1, 3000) + bytes(2 * PIECE - 3000) + content(2, 5000)
    run(disks, [disk(disks, "a", written, size)], "grab_disks")
    assert len(list((disks / "image/pieces").iterdir())) == 2, "the piece in the middle is empty"
    target = disk(disks, "b", content(3, PIECE), size + 4096)
    assert run(disks, [target], "deploy_disks") == ""
    assert (disks / "b").read_bytes()[:size] == written
    assert (disks / "b").stat().st_size == size + 4096


def test_a_second_grab_takes_the_images_disks_and_nothing_else(disks: Path) -> None:
    run(disks, [disk(disks, "a", content(1, 5000), 5000)], "grab_disks")
    before = (disks / "image/disks").read_text()
    larger = disk(disks, "b", content(1, 5000) + content(9, 4000), 9000)
    run(disks, [larger, disk(disks, "c", content(4, 700), 700)], "grab_disks")
    assert (disks / "image/disks").read_text() == before


def test_a_disk_that_is_missing_at_the_second_grab_costs_nothing(disks: Path) -> None:
    both = [disk(disks, "a", content(1, 5000), 5000), disk(disks, "b", content(2, 5000), 5000)]
    run(disks, both, "grab_disks")
    kept = sorted((disks / "image/pieces").iterdir())
    assert "refused: the image has a disk 2" in run(disks, both[:1], "grab_disks")
    assert sorted((disks / "image/pieces").iterdir()) == kept


def test_pieces_that_are_no_longer_used_go_when_the_new_list_is_there(disks: Path) -> None:
    own = [disk(disks, "a", content(1, 5000), 5000)]
    run(disks, own, "grab_disks")
    (old,) = (disks / "image/pieces").iterdir()
    disk(disks, "a", content(2, 5000), 5000)
    run(disks, own, "grab_disks")
    (new,) = (disks / "image/pieces").iterdir()
    assert new.name != old.name


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(disks: Path) -> None:
    run(disks, [disk(disks, "a", content(1, 5000), 5000), disk(disks, "b", content(2, 9000), 9000)], "grab_disks")
    small = [disk(disks, "x", content(7, 5000), 5000), disk(disks, "y", b"", 4000)]
    assert "refused: disk 2" in run(disks, small, "deploy_disks")
    assert (disks / "x").read_bytes() == content(7, 5000)


def test_a_broken_piece_is_never_written(disks: Path) -> None:
    run(disks, [disk(disks, "a", content(1, 5000), 5000)], "grab_disks")
    (piece,) = (disks / "image/pieces").iterdir()
    subprocess.run(["zstd", "-q", "-f", str(disks / "a"), "-o", str(piece)], check=True)
    os.truncate(disks / "a", 4000)
    subprocess.run(["zstd", "-q", "-f", str(disks / "a"), "-o", str(piece)], check=True)
    target = disk(disks, "b", b"", 5000)
    assert "refused: piece" in run(disks, [target], "deploy_disks")
    assert (disks / "b").read_bytes() == bytes(5000)
