"""The script that clones, run on this machine: a copy that takes its time says how far it is."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

from openqrm.plugin_api.scripts import script
from openqrm.plugins.storage.dir.driver import DirPool

if TYPE_CHECKING:
    from pathlib import Path

SLOW_CP = """#!/bin/sh
/bin/cp "$@"
status=$?
sleep 4
exit $status
"""


def clone(pool: Path, source: Path, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-s", "--", "clone", str(pool), name, "7", "0", str(source)],
        input=script(DirPool.package, *DirPool.scripts),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_copy_that_takes_its_time_says_how_far_it_is(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/cp").write_text(SLOW_CP)
    (tmp_path / "bin/cp").chmod(0o755)
    pool, source = tmp_path / "pool", tmp_path / "pool/base"
    source.mkdir(parents=True)
    (source / "large").write_bytes(os.urandom(3 << 20))
    done = clone(pool, source, "slow", PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^openqrm-progress \d+ 3 of 4 MB are copied$", done.stderr, re.MULTILINE)
    quick = clone(pool, source, "quick")
    assert (quick.returncode, quick.stderr) == (0, "")
    for name in ("slow", "quick"):
        assert (pool / name / "large").read_bytes() == (source / "large").read_bytes()


def test_a_copy_that_fails_leaves_nothing_with_the_name(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/cp").write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
    (tmp_path / "bin/cp").chmod(0o755)
    pool, source = tmp_path / "pool", tmp_path / "pool/base"
    source.mkdir(parents=True)
    failed = clone(pool, source, "new", PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert failed.returncode == 1
    assert "no room" in failed.stderr
    assert not (pool / "new").exists()
    assert clone(pool, source, "new").returncode == 0
    assert (pool / "new").is_dir()
