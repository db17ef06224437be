"""Images on every kind of storage: one travels over four of them unchanged, and a machine boots from LVM over iSCSI."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from openqrm.admin.lab.network import MACHINE_ADDRESS
from openqrm.admin.lab.process import children_of
from openqrm.admin.lab.state import LabSpec
from openqrm.testing.manifest import manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    from openqrm.testing.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.slow_lab, pytest.mark.timeout(1500)]

DISK_MB = 256
PLUGINS = ("file-storage", "iscsi-storage", "lvm-storage", "local-server")


def _partitioned(disk: Path, work: Path) -> None:
    """A machine's disk with one empty partition."""
    raw = work / "disk.raw"
    sectors = (DISK_MB - 1) * 2048
    entry = struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", 2048, sectors)
    with raw.open("wb") as file:
        file.write(entry.rjust(462, b"\0").ljust(510, b"\0") + b"\x55\xaa")
        file.truncate(DISK_MB << 20)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(disk)], check=True, capture_output=True)


def _archive(file: Path, work: Path) -> None:
    """A tree with all that copies like to lose."""
    root = work / "tree"
    for name in ("sbin", "etc", "var/empty dir", "dev", "proc"):
        (root / name).mkdir(parents=True)
    (root / "sbin/init").write_text("#!/bin/sh\n")
    (root / "sbin/init").chmod(0o4755)
    os.link(root / "sbin/init", root / "sbin/again")
    (root / "etc/link").symlink_to("../sbin/init")
    (root / "etc/broken").symlink_to("nowhere")
    (root / "etc/ünïcode name").write_text("x" * 5000)
    os.chown(root / "etc/ünïcode name", 1234, 4321)
    with (root / "var/sparse").open("wb") as sparse:
        sparse.truncate(8 << 20)
        sparse.seek(4 << 20)
        sparse.write(os.urandom(4096))
    os.mkfifo(root / "var/pipe")
    os.mknod(root / "dev/null", 0o20666, os.makedev(1, 3))
    (root / "var/empty dir").chmod(0o1777)
    os.setxattr(root / "etc/ünïcode name", "user.origin", b"here")
    capability = struct.pack("<IIIII", 0x02000000 | 1, 1 << 10, 0, 0, 0)  # cap_net_bind_service, effective
    os.setxattr(root / "sbin/again", "security.capability", capability)
    command = ["tar", "--create", "--file", str(file), "--directory", str(root), "--sparse", "--numeric-owner"]
    subprocess.run([*command, "--xattrs", "--xattrs-include=*", "."], check=True, capture_output=True)


@pytest.fixture(scope="module")
def places(site_up: Callable[[LabSpec], Site], tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = site_up(LabSpec(name="travel", nodes=1, api_port=0, disk_mb=DISK_MB, storage_machine=True))
    work = tmp_path_factory.mktemp("travel")
    _partitioned(site.lab.node("node1").home / "disk.qcow2", work)
    _archive(site.lab.controller.home / "shelf" / "traveller.tar", work)
    for plugin in PLUGINS:
        site("plugin", "init", plugin)
        site("plugin", "start", plugin)
    site("resource", "create", "--name", "storage2", "--address", MACHINE_ADDRESS, "--mac", "52:54:00:99:fe:02")
    site.on_storage("mkdir -p /srv/openqrm-files")
    _storage(site, "iscsi1", "iscsi-storage", "storage1", directory="/srv/openqrm-files")
    _storage(site, "lvmnfs", "lvm-nfs", "storage2", volume_group="vg0", thin_pool="trees", thin_pool_mb=4000)
    _storage(site, "lvmiscsi", "lvm-iscsi", "storage2", volume_group="vg0", thin_pool="blocks", thin_pool_mb=4000)
    site.power("on")
    (machine,) = site.idle()
    _storage(site, "disk1", "local-server", machine["name"], device="/dev/vda1")
    return site


def _storage(site: Site, name: str, kind: str, host: str, **settings: object) -> None:
    site("storage", "create", "--name", name, "--type", kind, "--resource-id", host, "--settings", json.dumps(settings))


def _manifest(site: Site, volume: str) -> dict[str, str]:
    """Of a volume in the storage host's directory."""
    record = site.lab.running("storage")
    assert record is not None
    (inner, *_) = children_of(record.pid)
    return manifest(Path(f"/proc/{inner}/root/srv/openqrm/{volume}"))


def test_an_image_travels_and_comes_back_as_it_left(places: Site) -> None:
    site = places
    given = ("--archive", "traveller.tar", "--size-mb", "100")
    site("volume", "import", "--name", "traveller", "--storage-id", "nfs1", *given)
    site("image", "create", "--name", "traveller", "--volume-id", "traveller")
    left = _manifest(site, "traveller")
    assert any("security.capability" in line for line in left.values())
    for target, name in (("iscsi1", "t1"), ("lvmnfs", "t2"), ("disk1", "vda1"), ("nfs1", "t4")):
        site("image", "move", "traveller", "--to-id", target, "--name", name, "--size-mb", "100")
        image = site("image", "show", "traveller")
        assert site("volume", "show", str(image["volume_id"]))["name"] == name
    assert _manifest(site, "t4") == left
    site("image", "remove", "traveller")
    site("volume", "remove", "t4")
    for name in ("nfs1", "iscsi1", "lvmnfs"):
        site("storage", "check", name)
        site("storage", "audit", name)
    site.idle()
    site.nothing_left()


def test_a_machine_boots_from_lvm_over_iscsi(places: Site) -> None:
    site = places
    archive = site.ingredients.archive.name
    site("volume", "import", "--name", "big", "--storage-id", "lvmiscsi", "--archive", archive, "--size-mb", "900")
    site("volume", "clone", "big", "--name", "web")
    site("image", "create", "--name", "web", "--volume-id", "web")
    site("appliance", "create", "--name", "web", "--image-id", "web")
    site("appliance", "start", "web")
    assert site.page(site.appliance("web")["address"])["host"] == "web"
    root = site.ssh(site.appliance("web")["address"], "cat /proc/mounts | grep ' / '")
    assert root.startswith("/dev/sd"), root
    site("appliance", "stop", "web")
    site.idle()
    site("storage", "audit", "lvmiscsi")
    site.nothing_left()
