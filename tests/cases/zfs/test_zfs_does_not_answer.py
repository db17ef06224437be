"""What ZFS does not show is not taken for gone: the script of the pool where ZFS answers once and then never again."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from openqrm.plugin_api.scripts import script
from openqrm.plugins.storage.zfs.driver import ZfsPool

if TYPE_CHECKING:
    from pathlib import Path

ONCE = """#!/bin/sh
[ ! -e "$0.asked" ] || exit 1
: >"$0.asked"
echo filesystem
"""


@pytest.mark.parametrize("verb", ["facts", "create", "clone", "fill", "resize", "remove", "undo"])
@pytest.mark.parametrize("kind", ["tree", "block"])
def test_nothing_is_said_to_be_done(tmp_path: Path, verb: str, kind: str) -> None:
    (tmp_path / "zfs").write_text(ONCE)
    (tmp_path / "zfs").chmod(0o755)
    words = [kind] if verb == "facts" else ["web", "7", "100", kind, "/tank/openqrm/web", "/tank/openqrm/other"]
    ended = subprocess.run(
        ["sh", "-s", "--", verb, "tank/openqrm", *words],
        input=script(ZfsPool.package, *ZfsPool.scripts),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert ended.returncode != 0
    assert (tmp_path / "zfs.asked").exists()
