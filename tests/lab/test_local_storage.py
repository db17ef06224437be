"""Whole disks: a machine's are taken into an image, another machine boots from them, and gives them back."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from openqrm.admin.lab.kernel import lab_kernel
from openqrm.admin.lab.state import LabSpec
from openqrm.testing import boot_disk
from openqrm.testing.site import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from openqrm.testing.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.slow_lab, pytest.mark.timeout(900)]

DISK_MB = 100


def _with_system(disk: Path, work: Path) -> None:
    """A machine on which somebody installed a system."""
    raw = boot_disk.build(lab_kernel(), work / "disk.raw", work / "parts")
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(disk)], check=True, capture_output=True)
    subprocess.run(["qemu-img", "resize", "-q", str(disk), f"{DISK_MB}M"], check=True, capture_output=True)


def _stopped(site: Site, name: str, node: str) -> None:
    """Stop an appliance whose system cannot be asked to go: somebody presses reset."""
    stop = site("appliance", "stop", name, "--no-wait")
    eventually(
        lambda: site("resource", "list", "--phase", "returning")["items"], 60, f"{name} is on its way", site.state
    )
    site.lab.power(node, "reset")
    assert site.operation(stop["id"], 600)["status"] == "done"


@pytest.fixture(scope="module")
def machines(site_up: Callable[[LabSpec], Site], tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = site_up(LabSpec(name="disks", nodes=2, api_port=0, disk_mb=DISK_MB))
    _with_system(site.lab.node("node1").home / "disk.qcow2", tmp_path_factory.mktemp("disk"))
    site("plugin", "init", "local-storage")
    site("plugin", "start", "local-storage")
    host = site("storage", "show", "nfs1")["resource_id"]
    site("volume", "remove", "golden")
    site("storage", "remove", "nfs1")  # a directory belongs to one storage, and this host has one file system
    site("storage", "create", "--name", "disks1", "--type", "local-storage", "--resource-id", str(host))
    site.power("on")
    site.idle()
    return site


def test_grabbed_deployed_and_grabbed_again(machines: Site) -> None:
    site = machines
    first, second = site.idle("node1", "node2")
    site("volume", "grab", "--name", "system", "--storage-id", "disks1", "--resource-id", first["name"])
    site("image", "create", "--name", "system", "--volume-id", "system")
    assert site.grants() == ""
    site("appliance", "create", "--name", "local", "--image-id", "system", "--resource-id", second["name"])
    site("appliance", "start", "local")
    page = site.page(second["address"], seconds=120)
    assert (page["from"], page["boots"]) == ("disk", "1")
    assert site.resource(second["name"])["agentless"]
    assert site.grants() == "", "a machine that runs from its own disks needs no access"
    site.lab.power("node2", "reset")
    eventually(lambda: site.page(second["address"])["boots"] == "2", 120, "it boots its own disk again", site.state)
    _stopped(site, "local", "node2")
    # What it wrote since is in the image: another machine, whose disk was empty of it, goes on from there.
    site("appliance", "update", "local", "--resource-id", first["name"])
    site("appliance", "start", "local")
    assert site.page(first["address"], seconds=120)["boots"] == "3"
    _stopped(site, "local", "node1")
    site.idle()
    site.nothing_left()


def test_booted_from_a_san_and_an_empty_disk_left_to_an_installer(machines: Site, tmp_path: Path) -> None:
    """The boot loader attaches the disk; while nothing is on it, the machine goes on with its own."""
    site = machines
    (node,) = site.idle("node1")
    for plugin in ("file-storage", "iscsi-storage", "aoe-storage", "sanboot-storage"):
        site("plugin", "init", plugin)
        site("plugin", "start", plugin)
    host = site("storage", "show", "disks1")["resource_id"]
    site.on_storage("mkdir -p /srv/openqrm-files")
    place = ("--resource-id", str(host), "--settings", '{"directory": "/srv/openqrm-files"}')
    site("storage", "create", "--name", "san1", "--type", "sanboot-iscsi", *place)
    shelf = site.lab.controller.home / "shelf"
    boot_disk.build(lab_kernel(), shelf / "system.raw", tmp_path / "parts", label="san-disk")
    site("volume", "import", "--name", "remote", "--storage-id", "san1", "--archive", "system.raw", "--size-mb", "100")
    site("image", "create", "--name", "remote", "--volume-id", "remote")
    site("appliance", "create", "--name", "san", "--image-id", "remote", "--resource-id", node["name"])
    site("appliance", "start", "san")
    page = site.page(node["address"], seconds=120)
    assert (page["from"], page["root"]) == ("ibft", "/dev/sda2")
    _stopped(site, "san", "node1")
    assert "openqrm" not in site.on_storage("tgtadm --mode target --op show || true")
    site("volume", "create", "--name", "empty", "--storage-id", "san1", "--size-mb", "100")
    site("image", "create", "--name", "empty", "--volume-id", "empty")
    site("appliance", "update", "san", "--image-id", "empty")
    seen = len(site.lab.node("node1").serial_log.read_text(errors="replace"))
    site("appliance", "start", "san")
    # The firmware goes on with its next devices, and the empty disk is still the first one: not the machine's own,
    # which would boot. An installer on a CD finds it so.
    log = site.lab.node("node1").serial_log
    eventually(lambda: "No bootable device" in log.read_text(errors="replace")[seen:], 240, "all devices tried")
    said = log.read_text(errors="replace")[seen:]
    assert "going on with the next device" in said
    assert "could not read the boot disk" in said
    assert "Initiator: iqn." in site.on_storage("tgtadm --mode target --op show"), "it stays attached"
    _stopped(site, "san", "node1")
    site.nothing_left()
