"""A pool whose file system is not mounted is no empty pool, though the directory below it is there."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from openqrm.plugin_api.script_pool import ABSENT
from openqrm.plugin_api.scripts import script
from openqrm.plugins.storage.dir.driver import DirPool
from openqrm.plugins.storage.file.driver import FilePool

if TYPE_CHECKING:
    from pathlib import Path

    from openqrm.plugin_api.script_pool import ScriptPool


def run(driver: type[ScriptPool], *words: str) -> subprocess.CompletedProcess[str]:
    text = script(driver.package, *driver.scripts)
    return subprocess.run(["sh", "-s", "--", *words], input=text, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("driver", [DirPool, FilePool])
def test_nothing_is_made_removed_or_told(tmp_path: Path, driver: type[ScriptPool]) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    made = run(driver, "create", str(pool), "web", "7", "4")
    assert made.returncode == 0, made.stderr
    pool.rename(tmp_path / "unmounted")
    pool.mkdir()
    for words in (("facts",), ("create", "new", "8", "4"), ("remove", "web", "7", "4"), ("undo", "web", "7", "4")):
        verb, *rest = words
        refused = run(driver, verb, str(pool), *rest)
        assert refused.returncode == ABSENT
        assert "is its file system mounted?" in refused.stderr
    assert not list(pool.iterdir())
    pool.rmdir()
    (tmp_path / "unmounted").rename(pool)
    assert "volume web" in run(driver, "facts", str(pool)).stdout


def test_a_link_in_an_archive_leads_nowhere(tmp_path: Path) -> None:
    pool, host_file = tmp_path / "pool", tmp_path / "host-file"
    (tmp_path / "tree").mkdir()
    pool.mkdir()
    host_file.write_text("the host's\n")
    (tmp_path / "tree/.openqrm-attributes").symlink_to(host_file)
    subprocess.run(["tar", "-C", str(tmp_path / "tree"), "-cf", str(tmp_path / "archive"), "."], check=True)
    assert run(DirPool, "create", str(pool), "web", "7", "0").returncode == 0
    filled = run(DirPool, "fill", str(pool), "web", "7", "0", str(tmp_path / "archive"))
    assert filled.returncode == 0, filled.stderr
    assert host_file.read_text() == "the host's\n"
