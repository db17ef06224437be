"""The storage machine by itself: real volume groups, mounts and exports that come back after its power was cut."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from openqrm.testing.storage_machine import storage_machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openqrm.testing.storage_machine import RealStorageMachine

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def machine(bios: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStorageMachine]:
    with storage_machine(tmp_path_factory.mktemp("machine"), "vmself") as made:
        yield made


def test_thin_volumes_snapshots_and_what_is_mounted_survive_a_cut_of_power(machine: RealStorageMachine) -> None:
    machine.shell(
        "lvcreate -q -y --type thin-pool -L 200M -n pool vg0;"
        " lvcreate -q -y --thin -V 1G -n one vg0/pool; mkfs.ext4 -q /dev/vg0/one; mkdir -p /vg0/one;"
        " echo '/dev/vg0/one /vg0/one ext4 defaults 0 2' >>/etc/fstab; mount /vg0/one; echo kept >/vg0/one/mark; sync;"
        " lvcreate -q -y -s -kn -n two vg0/one"
    )
    machine.power_off()
    with pytest.raises(subprocess.CalledProcessError):
        machine.inside("true")
    machine.power_on()
    assert machine.shell("cat /vg0/one/mark; mkdir /mnt/two; mount -o ro /dev/vg0/two /mnt/two; cat /mnt/two/mark") == (
        "kept\nkept\n"
    )
    machine.shell("umount /mnt/two /vg0/one; sed -i /vg0/d /etc/fstab; lvremove -q -y vg0")


def test_exports_and_programs_of_boot_come_back_after_a_reset(machine: RealStorageMachine) -> None:
    client = machine.clients[0]
    machine.shell(
        "mkdir -p /srv/openqrm/a /etc/exports.d; echo hello >/srv/openqrm/a/mark;"
        ' echo "/srv/openqrm/a $1(rw,no_root_squash,fsid=5)" >/etc/exports.d/a.exports;'
        " cd /etc/openqrm/boot.d; printf '#!/bin/sh\\necho ran >/run/ran\\n' >10-test; chmod 755 10-test; sync",
        client.address,
    )
    machine.reset()
    assert machine.inside("cat", "/run/ran") == "ran\n"
    done = client.run("nfs-cat", f"nfs://{machine.address}/srv/openqrm/a/mark?version=4")
    assert (done.stdout, done.returncode) == ("hello\n", 0), done.stderr
    other = machine.clients[1].run("nfs-cat", f"nfs://{machine.address}/srv/openqrm/a/mark?version=4")
    assert other.returncode != 0
    machine.shell("rm -r /srv/openqrm/a /etc/exports.d/a.exports /etc/openqrm/boot.d/10-test; exportfs -r")


def test_it_has_the_kernels_targets(machine: RealStorageMachine) -> None:
    """LIO by rtslib, and the modules that exports are made of."""
    script = (
        "import rtslib_fb as r\n"
        "r.RTSRoot()\n"
        "s = r.FileIOStorageObject('t', '/srv/t.img', 1 << 20)\n"
        "t = r.TPG(r.Target(r.FabricModule('iscsi'), 'iqn.2026-01.test.openqrm:t'), 1)\n"
        "r.LUN(t, 0, s)\n"
        "print(t.parent_target.wwn)\n"
        "t.parent_target.delete(); s.delete()\n"
    )
    assert machine.inside("python3", "-c", script) == "iqn.2026-01.test.openqrm:t\n"
    machine.shell("rm /srv/t.img; for each in aoe dm-snapshot btrfs xfs fuse loop nbd; do modprobe -n $each; done")
    for program in ("vblade", "nbdkit", "tgtd", "thin_check", "zpool"):
        assert machine.shell(f"command -v {program}").strip()


def test_a_file_with_a_file_system_can_be_mounted(machine: RealStorageMachine) -> None:
    """As pools of files do when they unpack an archive; after a start of the host too."""
    mount = "unshare --mount sh -ec 'mount -o loop /srv/t.img /mnt; echo kept >/mnt/mark; umount /mnt'"
    machine.shell(f"truncate -s 32M /srv/t.img; mkfs.ext4 -q /srv/t.img; {mount}")
    machine.power_off()
    machine.power_on()
    assert machine.shell(f"{mount}; debugfs -R 'cat mark' /srv/t.img 2>/dev/null; rm /srv/t.img") == "kept\n"
