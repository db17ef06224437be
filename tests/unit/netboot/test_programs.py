"""Programs for machines: packed with their libraries, made anew when they change; what is said when one is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import time
from typing import TYPE_CHECKING

import pytest

from openqrm.domain.errors import MissingDependencyError
from openqrm.netboot import programs, runtime
from openqrm.netboot.programs import Programs
from openqrm.plugin_api.plugin import Dependency
from openqrm.testing import needs

if TYPE_CHECKING:
    from pathlib import Path

CAT = Dependency("cat", "coreutils")


def test_a_program_runs_from_where_it_is_unpacked_with_nothing_of_the_system(tmp_path: Path) -> None:
    archive = Programs(tmp_path / "cache").archive(CAT)
    with tarfile.open(archive) as packed:
        assert "bin/cat" in packed.getnames()
        packed.extractall(tmp_path / "rt", filter="fully_trusted")
    place = tmp_path / "rt/programs/cat"
    (tmp_path / "text").write_text("read")
    command = [f"{place}/lib/ld.so", "--library-path", f"{place}/lib", f"{place}/cat", f"{tmp_path}/text"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "read"
    script = (tmp_path / "rt/bin/cat").read_text()
    assert script.startswith(f"#!{runtime.PREFIX}/bin/busybox sh\n")
    assert f"--library-path {runtime.PREFIX}/programs/cat/lib" in script


def test_what_is_unchanged_is_made_once_and_by_its_contents(tmp_path: Path) -> None:
    made = Programs(tmp_path)
    first = made.archive(CAT)
    written = first.stat().st_mtime_ns
    assert made.archive(CAT) == first
    assert Programs(tmp_path).archive(CAT) == first
    assert first.stat().st_mtime_ns == written
    content = first.read_bytes()
    first.unlink()
    assert made.archive(CAT).read_bytes() == content, "made again when it was removed, with the same bytes"


def test_a_new_version_of_the_program_is_packed_anew_and_old_archives_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    found = shutil.which("cat")
    assert found
    shutil.copy(found, tools / "cat")
    monkeypatch.setattr(runtime, "SEARCH", str(tools))
    made = Programs(tmp_path / "cache")
    first = made.archive(CAT)
    with (tools / "cat").open("ab") as file:
        file.write(b"patched")
    second = made.archive(CAT)
    assert second != first
    assert first.exists(), "a machine may be fetching it"
    long_ago = time.time() - programs.OLD_SECONDS - 60
    os.utime(first, (long_ago, long_ago))
    with (tools / "cat").open("ab") as file:
        file.write(b" again")
    made.archive(CAT)
    assert not first.exists()
    assert second.exists()


def test_what_the_server_lacks_is_named_with_its_package(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match="no-such-program, which is not installed") as raised:
        Programs(tmp_path).archive(Dependency("no-such-program", "its-package"))
    assert raised.value.remedy == "apt-get install its-package"
    assert not list(tmp_path.iterdir())


def test_a_static_program_needs_no_loader(tmp_path: Path) -> None:
    needs.have("busybox")
    archive = Programs(tmp_path).archive(Dependency("busybox", "busybox-static"))
    with tarfile.open(archive) as packed:
        assert packed.getnames() == ["bin/busybox", "programs/busybox/busybox"]
    assert b"ld.so" not in programs.wrapper("busybox", dynamic=False)
