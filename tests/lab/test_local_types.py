"""Roots that are in the machine itself: in its memory, filled anew at each boot, and on a partition of its own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from openqrm.admin.lab.errors import LabError
from openqrm.admin.lab.state import LabSpec
from openqrm.testing.manifest import differences
from openqrm.testing.site import eventually
from openqrm.testing.small_volume import all_idle, manifest_on_storage, small_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openqrm.testing.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.slow_lab, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def local_site(site_up: Callable[[LabSpec], Site]) -> Site:
    """A machine with a disk, idle; image `small` on nfs1; both plug-ins."""
    site = site_up(LabSpec(name="local", nodes=1, api_port=0, memory_mb=640, disk_mb=500))
    for plugin in ("tmpfs-storage", "local-server"):
        site("plugin", "init", plugin)
        site("plugin", "start", plugin)
    small_volume(site)
    site.power("on")
    site.idle()
    return site


@pytest.fixture
def local(local_site: Site) -> Iterator[Site]:
    """Its machine is idle before and after each test."""
    yield local_site
    all_idle(local_site)


def inside(site: Site, address: str, command: str) -> str:
    """What a command says in a running appliance, whose SSH server may just be starting."""

    def said() -> tuple[str] | None:
        with contextlib.suppress(LabError):
            return (site.ssh(address, command),)
        return None

    return eventually(said, 120, f"SSH at {address}", site.state)[0]


def test_a_root_in_memory_is_filled_anew_at_each_boot(local: Site) -> None:
    site = local
    site("storage", "create", "--name", "memory", "--type", "tmpfs-storage", "--resource-id", "storage1")
    site("volume", "create", "--name", "ram", "--storage-id", "memory", "--size-mb", "180")
    site("image", "create", "--name", "ram", "--volume-id", "ram", "--install-from-id", "small")
    site("appliance", "create", "--name", "ram", "--image-id", "ram")
    site("appliance", "start", "ram")
    address = site.appliance("ram")["address"]
    first = site.page(address)
    assert first["boots"] == "1"
    assert "tmpfs / tmpfs rw" in inside(site, address, "grep ' / ' /proc/mounts")
    assert inside(site, address, "stat -c '%u %g %h %a' /opt/odd/key").split() == ["1234", "4321", "2", "4710"]
    inside(site, address, "echo written >/root/gone")
    site.power("reset")

    def again() -> dict[str, str] | None:
        found = site.page(address, seconds=600)
        return found if found["id"] != first["id"] else None

    assert eventually(again, 600, "another root", site.state)["boots"] == "1"
    assert inside(site, address, "ls /root/gone 2>&1 || true").strip().endswith("No such file or directory")


def test_a_root_that_no_machine_has_memory_for_is_refused(local: Site) -> None:
    site = local
    site("storage", "create", "--name", "large", "--type", "tmpfs-storage", "--resource-id", "openqrm")
    site("volume", "create", "--name", "huge", "--storage-id", "large", "--size-mb", "4000")
    site("image", "create", "--name", "huge", "--volume-id", "huge", "--install-from-id", "small")
    site("appliance", "create", "--name", "huge", "--image-id", "huge")
    refused = str(site.refusal("appliance", "start", "huge"))
    assert f"lacks {4256 - site.resource('node1')['memory_mb']} MB of memory" in refused


def test_an_image_is_installed_on_a_partition_runs_there_and_is_copied_back(local: Site) -> None:
    site = local
    machine = site.resource("node1")["name"]
    settings = ("--settings", '{"device": "/dev/vda"}')
    site("storage", "create", "--name", "disk", "--type", "local-server", "--resource-id", machine, *settings)
    assert "named vda" in str(site.refusal("volume", "create", "--name", "other", "--storage-id", "disk"))
    site("volume", "create", "--name", "vda", "--storage-id", "disk")
    site("image", "create", "--name", "installed", "--volume-id", "vda")
    site("appliance", "create", "--name", "installed", "--image-id", "installed")
    refused = str(site.refusal("appliance", "start", "installed"))
    assert "there is no file system on /dev/vda, and nothing to fill it with" in refused
    site.idle()
    site("image", "update", "installed", "--install-from-id", "small")
    site("appliance", "start", "installed")
    address = site.appliance("installed")["address"]
    first = site.page(address)
    assert inside(site, address, "grep ' / ' /proc/mounts").startswith("/dev/vda / ext4 rw")
    site("appliance", "stop", "installed")
    site.idle()

    site("volume", "create", "--name", "back", "--storage-id", "nfs1")
    site("image", "create", "--name", "back", "--volume-id", "back")
    site("image", "update", "installed", "--transfer-to-id", "back")
    site("appliance", "start", "installed")
    second = site.page(address)
    assert (second["id"], second["boots"]) == (first["id"], "2"), "it was installed once"
    site("appliance", "stop", "installed")
    site.idle()
    found = manifest_on_storage(site, "/srv/openqrm/back")
    assert "user.note=6b657074" in found["opt/odd/key"]
    assert "same-as=opt/odd/key" in found["opt/odd/second-name"]
    assert " sparse " in found["opt/odd/hole"]
    source = manifest_on_storage(site, "/srv/openqrm/small")
    wanted = {name: line for name, line in source.items() if name.startswith(("opt/", "usr/bin/"))}
    assert differences(wanted, {name: found[name] for name in found if name in wanted}) == []
    assert site.on_storage("ls -A /srv/openqrm/back/tmp").strip() == ""
    assert ".openqrm-transfer" not in site.on_storage("ls -A /srv/openqrm/back")
    site.nothing_left()


def test_an_image_is_copied_to_a_local_device_and_installed_from_it(local: Site) -> None:
    site = local
    for name, option in (("outgoing", "--transfer-to-device"), ("incoming", "--install-from-device")):
        if option == "--transfer-to-device":
            site("volume", "clone", "small", "--name", name)
        else:
            site("volume", "create", "--name", name, "--storage-id", "nfs1")
        site("image", "create", "--name", name, "--volume-id", name)
        site("image", "update", name, option, "/dev/vda")
        site("appliance", "create", "--name", name, "--image-id", name)
        site("appliance", "start", name)
        assert site.page(site.appliance(name)["address"])["boots"] == "1"
        site("appliance", "stop", name)
        site("appliance", "remove", name)
        site.idle()
    source, copied = (manifest_on_storage(site, f"/srv/openqrm/{name}") for name in ("small", "incoming"))
    odd = {name: line for name, line in source.items() if name.startswith("opt/")}
    assert len(odd) > 5
    assert {name: line for name, line in copied.items() if name.startswith("opt/")} == odd
    site.nothing_left()
