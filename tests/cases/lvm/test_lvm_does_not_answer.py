"""What LVM does not show is not taken for gone: the script of the pool on a host whose LVM gives no answer."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from openqrm.plugin_api.scripts import script
from openqrm.plugins.storage.lvm.driver import LvmPool

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("verb", ["create", "fill", "resize", "remove", "undo"])
def test_nothing_is_done_and_nothing_is_said_to_be_done(tmp_path: Path, verb: str) -> None:
    done = tmp_path / "done"
    for name in ("lvs", "lvcreate", "lvremove", "lvextend", "lvrename", "mkfs.ext4"):
        body = "exit 5" if name == "lvs" else f"echo {name} >>{done}"
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    ended = subprocess.run(
        ["sh", "-s", "--", verb, "group/block", "web", "7", "100", "0", "200"],
        input=script(LvmPool.package, *LvmPool.scripts),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert ended.returncode == 1
    assert ended.stderr
    assert not done.exists()
