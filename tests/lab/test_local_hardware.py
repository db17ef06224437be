"""What a machine brings beside its boot card: swap on a local disk, a second card for a storage network."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from openqrm.admin.lab.state import LabSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from openqrm.testing.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.slow_lab, pytest.mark.timeout(420)]

DISK_MB = 64
SECOND = "52:54:00:99:01:01"


def _make_swap(disk: Path, work: Path) -> None:
    """A disk with a swap signature, as an operator's mkswap leaves it."""
    raw = work / "swap.raw"
    raw.write_bytes(bytes(DISK_MB << 20))
    raw.chmod(0o600)
    subprocess.run(["mkswap", str(raw)], check=True, capture_output=True)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(disk)], check=True, capture_output=True)


def test_swap_a_second_card_and_the_root_password(site_up: Callable[[LabSpec], Site], tmp_path: Path) -> None:
    site = site_up(LabSpec(name="hardware", nodes=1, api_port=0, second_nic=True, disk_mb=DISK_MB))
    _make_swap(site.lab.node("node1").home / "disk.qcow2", tmp_path)
    site(
        "network",
        "create",
        "--name",
        "storage",
        "--role",
        "storage",
        "--cidr",
        "10.99.1.0/24",
        "--interface",
        "br1",
        "--discovery",
        '{"first": "10.99.1.100", "last": "10.99.1.199"}',
    )
    site.power("on")
    (machine,) = site.idle()
    assert machine["nic_count"] == 2
    site.make("web", "--storage-nic", SECOND)
    site("image", "set-password", "web", "--password", "-", secret="correct horse")
    site("appliance", "start", "web")
    address = site.appliance("web")["address"]
    assert " 10.99.1.1" in site.ssh(address, "ip -br address show eth1")
    assert "/dev/vda" in site.ssh(address, "cat /proc/swaps")
    fstab = site.ssh(address, "cat /etc/fstab").splitlines()
    assert any(line.startswith("10.99.0.2:/srv/openqrm/web / nfs4 ") for line in fstab)
    assert "/dev/vda none swap sw 0 0" in fstab
    assert site.ssh(address, "grep ^root: /etc/shadow").startswith("root:$6$")
    assert site.resource(machine["name"])["swap_mb"] >= DISK_MB - 1
    site("appliance", "stop", "web")
    site.idle()
    site.nothing_left()
