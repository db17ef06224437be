"""What the script of the LVM pools says of a host, from what vgs(8) and lvs(8) said on a real one."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from openqrm.plugin_api.scripts import script
from openqrm.plugins.storage.lvm.driver import LvmPool

if TYPE_CHECKING:
    from pathlib import Path

GROUPS = "  other    0\n  vg0 22564.90\n"
VOLUMES = """\
  a|209715200|openqrm||3.16||openqrm,openqrm.block,openqrm.filled,openqrm.volume=1
  b|104857600|openqrm|a|0.00||openqrm,openqrm.block,openqrm.volume=3
  f|209715200|openqrm||9.06||openqrm,openqrm.filled,openqrm.tree,openqrm.volume=5
  mine|1048577|||||openqrm
  openqrm|2097152000|||1.85|11.62|openqrm.pool
  part|12582912||mine|100.00||openqrm,openqrm.block
  room|12582912||mine|99.99||openqrm,openqrm.block
  swap|536870912|||||
  theirs|12582912|small||1.00||openqrm,openqrm.block
  u|104857600|openqrm|f|11.06||openqrm,openqrm.tree,openqrm.volume=4
  x_new|104857600|openqrm||||openqrm,openqrm.block,openqrm.volume=9
  y_from|104857600|openqrm||||openqrm,openqrm.tree,openqrm.volume=8
"""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A folder of commands as a host with LVM has them."""
    for name, output in {"vgs": GROUPS, "lvs": VOLUMES, "thin_check": ""}.items():
        command = tmp_path / name
        command.write_text(f"#!/bin/sh\ncat <<'END'\n{output}END\n", encoding="utf-8")
        command.chmod(0o755)
    for tool in ("awk", "cat", "sh", "tr"):  # and nothing else of this machine
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    return tmp_path


def said(host: Path, place: str) -> list[str]:
    text = script(LvmPool.package, *LvmPool.scripts)
    done = subprocess.run(
        ["sh", "-c", text, "pool", "facts", place], env={"PATH": str(host)}, capture_output=True, text=True, check=True
    )
    return sorted(done.stdout.splitlines())


HOST = ["free_mb 22564", "has group", "has groups other, vg0", "has lvm", "has thin"]


def test_thin_block_devices(host: Path) -> None:
    here = ["has pool 2000 11.62", "has thick mine part room", "has lost part", "leftover vg0/x_new"]
    volumes = ["volume a 200", "volume b 100", "volume mine 2", "volume part 12", "volume room 12"]
    assert said(host, "vg0/block/openqrm") == sorted(HOST + here + volumes)


def test_trees(host: Path) -> None:
    here = ["has pool 2000 11.62", "has thick", "has lost", "leftover vg0/y_from", "volume f 200", "volume u 100"]
    assert said(host, "vg0/tree/openqrm") == sorted(HOST + here)


def test_another_thin_pool_and_none(host: Path) -> None:
    """What has all its room from the start is everybody's; a host without the thin pool does not say how full it is."""
    thick = ["has thick mine part room", "has lost part", "volume mine 2", "volume part 12", "volume room 12"]
    left = ["leftover vg0/x_new"]
    assert said(host, "vg0/block/fast") == sorted(HOST + thick + left)
    assert said(host, "vg0/block") == sorted([*HOST, *thick, *left, "lacks clone-cow"])


def test_a_host_without_the_group_or_without_lvm(host: Path) -> None:
    (host / "thin_check").unlink()
    (host / "lvs").write_text("#!/bin/sh\n", encoding="utf-8")
    found = said(host, "vol/block/openqrm")
    assert [line for line in found if not line.startswith(("has thick", "has lost"))] == [
        "has groups other, vg0",
        "has lvm",
    ]
    (host / "lvs").unlink()
    (host / "vgs").unlink()
    assert said(host, "vol/block/openqrm") == []


@pytest.mark.parametrize("command", ["vgs", "lvs"])
def test_a_silent_lvm_is_no_host_without_volumes(host: Path, command: str) -> None:
    (host / command).write_text("#!/bin/sh\nexit 5\n", encoding="utf-8")
    with pytest.raises(subprocess.CalledProcessError):
        said(host, "vg0/block/openqrm")
