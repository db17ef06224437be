"""Images that are filled from others and copied to others while a machine deploys them, also when it dies meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from openqrm.admin.lab.state import LabSpec
from openqrm.testing.manifest import differences
from openqrm.testing.site import eventually
from openqrm.testing.small_volume import all_idle, manifest_on_storage, small_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openqrm.testing.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.slow_lab, pytest.mark.timeout(1500)]

POOL = "/srv/openqrm"
CHANGED = {".", "etc", "etc/fstab", "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/machine-id", "root", "srv"}
"""What a deployment and a boot change; all below these, too."""
BELOW = ("etc/", "root/", "srv/", "usr/lib", "var/lib", "run", "tmp", "dev", "proc", "sys")


@pytest.fixture(scope="module")
def transfers_site(site_up: Callable[[LabSpec], Site]) -> Site:
    """A machine, idle, and image `small` on nfs1."""
    site = site_up(LabSpec(name="transfers", nodes=1, api_port=0))
    small_volume(site)
    site.power("on")
    site.idle()
    return site


@pytest.fixture
def transfers(transfers_site: Site) -> Iterator[Site]:
    """Its machine is idle before and after each test."""
    yield transfers_site
    all_idle(transfers_site)


def empty_image(site: Site, name: str, *more: str) -> str:
    """An image on an empty volume of nfs1; its directory."""
    site("volume", "create", "--name", name, "--storage-id", "nfs1")
    site("image", "create", "--name", name, "--volume-id", name, *more)
    return f"{POOL}/{name}"


def test_an_image_is_installed_from_another_and_copied_to_a_third(transfers: Site) -> None:
    site = transfers
    place = empty_image(site, "web", "--install-from-id", "small")
    site("appliance", "create", "--name", "web", "--image-id", "web")
    began = time.monotonic()
    site("appliance", "start", "web")
    print(f"installed and started in {time.monotonic() - began:.0f} s")
    page = site.page(site.appliance("web")["address"])
    assert page["boots"] == "1"
    assert site("image", "show", "web")["install_from_id"] is None, "that is done once"
    site("appliance", "stop", "web")
    site.idle()
    source, copied = manifest_on_storage(site, f"{POOL}/small"), manifest_on_storage(site, place)
    kept = {name: line for name, line in source.items() if name not in CHANGED and not name.startswith(BELOW)}
    assert len(kept) > 100
    assert differences(kept, {name: line for name, line in copied.items() if name in kept}) == []

    out = empty_image(site, "out")
    site("image", "update", "web", "--transfer-to-id", "out")
    before = manifest_on_storage(site, place)
    site("appliance", "start", "web")
    assert site.page(site.appliance("web")["address"])["boots"] == "2"
    site("appliance", "stop", "web")
    site.idle()
    volatile = ("tmp/", "run/", "dev/", "proc/", "sys/")
    wanted = {name: line for name, line in before.items() if not name.startswith(volatile)}
    assert differences(wanted, manifest_on_storage(site, out)) == []
    site.nothing_left()


def test_a_half_done_image_is_never_booted_and_completed_by_a_repetition(transfers: Site) -> None:
    site = transfers
    place = empty_image(site, "half")
    site.on_storage(
        f"cp -a {POOL}/small/usr {place}/ && echo o1 deadbeef new >{place}/.openqrm-transfer && rm -rf {place}/usr/bin"
    )
    site("appliance", "create", "--name", "half", "--image-id", "half")
    assert "half-done target of a transfer" in str(site.refusal("appliance", "start", "half"))
    site.idle()
    site("image", "update", "half", "--install-from-id", "small")
    site("appliance", "start", "half")
    assert site.page(site.appliance("half")["address"])["boots"] == "1"
    assert ".openqrm-transfer" not in site.on_storage(f"ls -A {place}")
    site("appliance", "stop", "half")
    site.idle()
    site.nothing_left()


def test_a_machine_that_dies_while_it_copies_goes_on_when_it_is_back(transfers: Site) -> None:
    site = transfers
    place = empty_image(site, "torn", "--install-from-id", "small")
    site("appliance", "create", "--name", "torn", "--image-id", "torn")
    operation = site("appliance", "start", "torn", "--no-wait")["id"]

    def copying() -> int | None:
        count = int(site.on_storage(f"find {place} -type f | wc -l"))
        return count if count > 40 else None

    assert eventually(copying, 300, "files in the target", site.state)
    site.power("reset")
    assert site.on_storage(f"ls -A {place}/.openqrm-transfer").strip()
    assert site.operation(operation, seconds=900)["status"] == "done"
    assert site.page(site.appliance("torn")["address"])["boots"] == "1"
    assert ".openqrm-transfer" not in site.on_storage(f"ls -A {place}")
    site("appliance", "stop", "torn")
    site.idle()
    site.nothing_left()
