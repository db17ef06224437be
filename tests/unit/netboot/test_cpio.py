"""Archives that the kernel, and cpio(1), unpack."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from openqrm.netboot import cpio
from openqrm.netboot.cpio import Entry
from openqrm.testing import needs

if TYPE_CHECKING:
    from pathlib import Path


def _listed(data: bytes) -> list[str]:
    done = subprocess.run(["cpio", "-t", "--quiet"], input=data, capture_output=True, check=True)
    return done.stdout.decode().splitlines()


def test_cpio_unpacks_what_was_packed(tmp_path: Path) -> None:
    needs.have("cpio")
    data = cpio.archive(
        {
            "/etc/openqrm/ticket": Entry.file(b"secret\n", 0o600),
            "bin/busybox": Entry.file(b"\x7fELF\0odd", 0o755),
            "bin/sh": Entry.link("busybox"),
            "empty": b"",
            "run": Entry.directory(),
        }
    )
    subprocess.run(["cpio", "-idm", "--quiet"], input=data, cwd=tmp_path, check=True)
    ticket = tmp_path / "etc/openqrm/ticket"
    assert ticket.read_bytes() == b"secret\n"
    assert ticket.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "bin/sh").readlink().name == "busybox"
    assert (tmp_path / "bin/sh").read_bytes() == b"\x7fELF\0odd"
    assert (tmp_path / "empty").read_bytes() == b""
    assert (tmp_path / "run").is_dir()


def test_a_directory_comes_before_what_is_in_it() -> None:
    needs.have("cpio")
    names = _listed(cpio.archive({"a/b/c": b"1", "a.d/x": b"2", "a-b": b"3"}))
    assert names.index("a") < names.index("a/b") < names.index("a/b/c")
    assert names.index("a.d") < names.index("a.d/x")


def test_the_order_of_arguments_changes_nothing() -> None:
    assert cpio.archive({"b": b"2", "a": b"1"}) == cpio.archive({"a": b"1", "b": b"2"})


def test_another_archive_can_follow() -> None:
    assert len(cpio.archive({"x": b"12345"})) % cpio.BLOCK == 0


def test_a_device_keeps_its_numbers() -> None:
    header = cpio.archive({"console": Entry.character_device(5, 1)})[:110]
    assert (int(header[78:86], 16), int(header[86:94], 16)) == (5, 1)
    assert int(header[14:22], 16) == 0o020600


@pytest.mark.parametrize("name", ["", "/", "../etc/passwd", "a/../../b"])
def test_a_path_outside_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a path inside"):
        cpio.archive({name: b""})
