"""A machine whose root is a thin logical volume over iSCSI, on a storage host with a kernel of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openqrm.admin.lab.network import MACHINE_ADDRESS, MACHINE_MAC
from openqrm.admin.lab.state import LabSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from openqrm.testing.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.slow_lab, pytest.mark.timeout(1200)]

SETTINGS = '{"volume_group": "vg0", "thin_pool_mb": 6000, "server": "lio"}'


def test_a_clone_of_a_golden_volume_is_a_root_over_iscsi(site_up: Callable[[LabSpec], Site]) -> None:
    site = site_up(LabSpec(name="lvmroot", nodes=1, api_port=0, storage_machine=True))
    for plugin in ("file-storage", "iscsi-storage", "lvm-storage"):
        site("plugin", "init", plugin)
        site("plugin", "start", plugin)
    site("resource", "create", "--name", "storage2", "--address", MACHINE_ADDRESS, "--mac", MACHINE_MAC)
    host = ("--resource-id", "storage2")
    site("storage", "create", "--name", "lvm1", "--type", "lvm-iscsi", *host, "--settings", SETTINGS)
    archive = ("--archive", site.ingredients.archive.name)
    site("volume", "import", "--name", "base", "--storage-id", "lvm1", *archive, "--size-mb", "900")
    site("volume", "clone", "base", "--name", "web")
    site("image", "create", "--name", "web", "--volume-id", "web")
    site("appliance", "create", "--name", "web", "--image-id", "web")
    site.power("on")
    site.idle()
    site("appliance", "start", "web")
    address = site.appliance("web")["address"]
    assert site.page(address)["host"] == "web"
    root = site.ssh(address, "grep ' / ' /proc/mounts | tail -n 1")
    assert root.startswith("/dev/sd"), root
    site("appliance", "stop", "web")
    site.idle()
    site("storage", "audit", "lvm1")
    site("storage", "check", "lvm1")
    site.nothing_left()
