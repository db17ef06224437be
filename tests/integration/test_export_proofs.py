"""What the scripts of exports take for a proof, run on this machine against servers that answer as they are told to."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from openqrm.plugin_api.scripts import script
from openqrm.plugins.storage.iscsi.driver import IscsiExport
from openqrm.plugins.storage.nfs.driver import NfsExport
from openqrm.testing import needs

if TYPE_CHECKING:
    from pathlib import Path

    from openqrm.plugin_api.script_export import ScriptExport

ETAB = "/var/lib/nfs/etab"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Which the host has besides its own; that `sleep` takes no time."""
    needs.root_and("unshare")
    folder = tmp_path / "bin"
    folder.mkdir()
    program(folder, "sleep", ":")
    return folder


def program(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def run(
    export: type[ScriptExport], programs: Path, before: str, *words: str, after: str = ""
) -> subprocess.CompletedProcess[str]:
    """A verb, with processes, locks and mounts of its own."""
    text = script(export.package, *export.scripts)
    mounts = "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/nfs"
    shell = f'{mounts} && {before}\nstatus=0; sh -s -- "$@" || status=$?\n{after}\nexit $status'
    return subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", shell, "sh", *words],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        cwd=programs,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
    )


def tables(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "ganesha/exports.d").mkdir(parents=True)
    (tmp_path / "exports.d").mkdir()
    return str(tmp_path / "ganesha/exports.d"), str(tmp_path / "exports.d")


def test_a_tgtd_that_does_not_answer_proves_nothing(programs: Path) -> None:
    program(programs, "tgtadm", "echo 'tgtadm: failed to send request hdr to tgt daemon' >&2; exit 107")
    shutil.copy("/bin/sleep", programs / "tgtd")
    ended = run(IscsiExport, programs, f"{programs}/tgtd 60 &", "revoke", "volume-7", "/dev/pool/web")
    assert ended.returncode == 1
    assert "does not say" in ended.stderr


def test_access_for_everybody_is_taken_back(programs: Path, tmp_path: Path) -> None:
    program(programs, "exportfs", f'[ "$*" != "-u *:/srv/pool/web" ] || : >{ETAB}')
    given = f"printf '/srv/pool/web\\t*(rw,sync)\\n' >{ETAB}"
    ended = run(NfsExport, programs, given, "revoke", *tables(tmp_path), "volume-7", "/srv/pool/web")
    assert ended.returncode == 0, ended.stderr


def test_an_address_that_ends_alike_is_another_one(programs: Path, tmp_path: Path) -> None:
    program(programs, "exportfs", "exit 1")
    given = f"printf '/srv/pool/web\\t110.0.0.1(rw,sync)\\n' >{ETAB}"
    words = ("withdraw", *tables(tmp_path), "-", "/srv/pool/web", "10.0.0.1")
    ended = run(NfsExport, programs, given, *words, after=f"cat {ETAB}")
    assert ended.returncode == 0, ended.stderr
    assert "110.0.0.1(rw,sync)" in ended.stdout


def test_a_file_without_an_end_of_its_last_line_hides_nothing(programs: Path, tmp_path: Path) -> None:
    ganesha, kernel = tables(tmp_path)
    program(programs, "exportfs", ":")
    program(programs, "ganesha.nfsd", ":")
    (tmp_path / "ganesha/ganesha.conf").write_text("LOG { Default_Log_Level = EVENT; }")
    said = run(NfsExport, programs, ":", "facts", ganesha, kernel)
    found = NfsExport().parse(said.stdout)
    assert (found.has["ganesha"], found.has["kernel"]) == ("installed", "installed")


def test_a_table_that_cannot_be_rewritten_stays(programs: Path, tmp_path: Path) -> None:
    folders = tables(tmp_path)
    table = tmp_path / "exports.d/hand.exports"
    table.write_text("/srv/pool/web 10.0.0.1(rw)\n/srv/pool/other 10.0.0.2(rw)\n")
    before = table.read_text()
    program(programs, "awk", "exit 2")
    ended = run(NfsExport, programs, ":", "withdraw", *folders, "-", "/srv/pool/web", "10.0.0.1")
    assert ended.returncode == 1
    assert "stays as it is" in ended.stderr
    assert table.read_text() == before
