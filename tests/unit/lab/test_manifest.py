"""The manifest of a file tree: that it sees each way in which a copy can differ."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from openqrm.testing import needs
from openqrm.testing.manifest import ATTRIBUTES, attributes_file, differences, manifest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "etc").mkdir(parents=True)
    (root / "etc/a").write_text("one")
    (root / "etc/b").hardlink_to(root / "etc/a")
    (root / "etc/link").symlink_to("a")
    with (root / "etc/hole").open("wb") as file:
        file.truncate(4 << 20)
    os.setxattr(root / "etc/a", "user.note", b"kept")
    os.utime(root / "etc/a", (1_000_000, 1_000_000))
    return root


CHANGES = {
    "contents": "printf two >etc/a; touch -d @1000000 etc/a",
    "mode": "chmod 4755 etc/a",
    "time": "touch -d @1000001 etc/a",
    "target of a link": "ln -sfn b etc/link",
    "hard link": "cp -p --preserve=xattr etc/b etc/c && mv etc/c etc/b",
    "hole": "dd if=/dev/zero of=etc/hole bs=1M count=4 conv=notrunc status=none",
    "attribute": "setfattr -n user.note -v other etc/a",
    "missing": "rm etc/link",
    "more": "touch etc/more",
    "kind": "rm etc/link; mkfifo etc/link",
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_difference_is_seen(tree: Path, what: str) -> None:
    before = manifest(tree)
    assert differences(before, manifest(tree)) == []
    hole = (tree / "etc/hole").stat().st_mtime
    subprocess.run(["sh", "-ec", CHANGES[what]], cwd=tree, check=True)
    os.utime(tree / "etc/hole", (hole, hole))
    assert differences(before, manifest(tree)), what


def test_what_is_left_out_and_times_that_do_not_count(tree: Path) -> None:
    before = manifest(tree, times=False, leave_out=["etc/hole"])
    os.utime(tree / "etc/a", (5, 5))
    (tree / "etc/hole").unlink()
    (tree / "lost+found").mkdir()
    assert differences(before, manifest(tree, times=False, leave_out=["etc/hole"])) == []


def test_attributes_in_a_file_count_as_the_entries_own(tree: Path) -> None:
    needs.have("getfattr")
    odd = tree / "etc/odd\nname"
    odd.touch()
    os.setxattr(odd, "user.note", b"\0\n")
    before = manifest(tree)
    command = ["getfattr", "-R", "-P", "-h", "-d", "-e", "hex", "-m", "^(user|trusted|security)", "."]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True)
    assert done.stdout
    for name in ("a", "odd\nname"):
        os.removexattr(tree / "etc" / name, "user.note")
    assert differences(before, manifest(tree))
    listed = done.stdout.split("# file: etc/b\n")[0]  # by one of its two names
    assert listed != done.stdout
    (tree / ATTRIBUTES).write_text(done.stdout)
    whole = manifest(tree)
    (tree / ATTRIBUTES).write_text(
        listed + "# file: " + done.stdout.split("# file: etc/b\n")[1].partition("# file: ")[2]
    )
    assert differences(whole, manifest(tree)) == []
    assert attributes_file(tree / ATTRIBUTES)
    assert [line for line in differences(before, manifest(tree)) if not line.startswith(".:")] == []
