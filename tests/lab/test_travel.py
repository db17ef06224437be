"""One image travels: NFS, iSCSI, a mounted logical volume over NFS, a machine's own partition, and back to NFS."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from openqrm.admin.lab.network import MACHINE_ADDRESS, MACHINE_MAC
from openqrm.admin.lab.state import LabSpec
from openqrm.testing.manifest import differences
from openqrm.testing.small_volume import ATTRIBUTES, ODD, manifest_on_storage

if TYPE_CHECKING:
    from collections.abc import Callable

    from openqrm.testing.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.slow_lab, pytest.mark.timeout(1800)]

PLACE = "/srv/openqrm/traveller"
TREE = (
    "mkdir -p etc sbin usr/share/many && echo traveller >etc/hostname && cp -a /bin/busybox sbin/init "
    "&& for each in 1 2 3 4 5 6 7 8 9; do echo $each >usr/share/many/$each; done && touch -d 2001-02-03 etc/hostname"
)


@pytest.fixture(scope="module")
def journey(site_up: Callable[[LabSpec], Site]) -> Site:
    """A machine with a disk, two storage hosts, and a storage of each type; image `traveller` on nfs1, of few files."""
    site = site_up(LabSpec(name="travel", nodes=1, api_port=0, memory_mb=512, disk_mb=300, storage_machine=True))
    for plugin in ("file-storage", "iscsi-storage", "lvm-storage", "local-server"):
        site("plugin", "init", plugin)
        site("plugin", "start", plugin)
    site("resource", "create", "--name", "storage2", "--address", MACHINE_ADDRESS, "--mac", MACHINE_MAC)
    site.on_storage("mkdir -p /srv/openqrm-images")
    site("storage", "create", "--name", "san", "--type", "iscsi-storage", "--resource-id", "storage1")
    settings = '{"volume_group": "vg0", "default_size_mb": 400}'
    site("storage", "create", "--name", "lvm", "--type", "lvm-nfs", "--resource-id", "storage2", "--settings", settings)
    site("volume", "create", "--name", "traveller", "--storage-id", "nfs1")
    site("image", "create", "--name", "traveller", "--volume-id", "traveller")
    site.on_storage(f"cd {PLACE} && {TREE} && {ODD}")
    site.on_storage(f"printf '%s\\n' {shlex.join(ATTRIBUTES)} >{PLACE}/.openqrm-attributes")
    site.power("on")
    machine = site.idle()[0]["name"]
    disk = '{"device": "/dev/vda"}'
    site("storage", "create", "--name", "disk", "--type", "local-server", "--resource-id", machine, "--settings", disk)
    return site


def test_an_image_arrives_as_it_left(journey: Site) -> None:
    site = journey
    before = manifest_on_storage(site, PLACE)
    assert "user.note=6b657074" in before["opt/odd/key"]
    for storage, more in (
        ("san", ("--size-mb", "200")),
        ("lvm", ("--size-mb", "400")),
        ("disk", ("--name", "vda", "--size-mb", "0")),
        ("nfs1", ("--name", "traveller")),
    ):
        assert site("image", "move", "traveller", "--to-id", storage, *more)["status"] == "done", storage
        volume = site("volume", "show", str(site("image", "show", "traveller")["volume_id"]))
        assert site("storage", "show", str(volume["storage_id"]))["name"] == storage
    assert differences(before, manifest_on_storage(site, PLACE)) == []
    site.nothing_left()
