"""The power of a storage host is cut in the middle of each operation: it completes or is undone, nothing is left over.

On both kinds: the usual one with nfs-ganesha on btrfs, and the storage machine with LVM and the kernel's NFS server,
which loses what was not on its disks. Running appliances survive an outage of a minute.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.admin.lab.network import MACHINE_ADDRESS, MACHINE_MAC
from openqrm.admin.lab.state import LabSpec
from openqrm.testing import share
from openqrm.testing.block_roots import longest_stall, start_writing, written
from openqrm.testing.site import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openqrm.testing.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.slow_lab, pytest.mark.timeout(1800)]

MOMENTS = (0.0, 0.2, 0.5, 1.0, 2.0)
"""Seconds after a step began to act on the host at which its power is cut; one of them for each commit and test."""
AWAY_SECONDS = 8.0
OUTAGE_SECONDS = 60.0
SIZE_MB = 600
VERBS = ("create", "import", "clone", "snapshot", "resize", "remove")


@dataclass(frozen=True)
class Stand:
    """A storage, the lab's name of its host, the volume there from which others are made, and what it cannot."""

    site: Site
    storage: str
    host: str
    base: str
    cannot: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def two_storages(site_up: Callable[[LabSpec], Site]) -> Site:
    site = site_up(LabSpec(name=f"flt-{os.getpid()}", nodes=1, api_port=0, storage_machine=True))
    site("plugin", "init", "lvm-storage")
    site("plugin", "start", "lvm-storage")
    site("resource", "create", "--name", "storage2", "--address", MACHINE_ADDRESS, "--mac", MACHINE_MAC)
    settings = json.dumps({"volume_group": "vg0", "thin_pool_mb": 8000})
    kind = ("--type", "lvm-nfs", "--resource-id", "storage2", "--settings", settings)
    site("storage", "create", "--name", "lvm1", *kind)
    archive = ("--archive", site.ingredients.archive.name, "--size-mb", str(SIZE_MB))
    site("volume", "import", "--name", "golden-lvm", "--storage-id", "lvm1", *archive)
    site.power("on")
    return site


@pytest.fixture(params=["nfs", "lvm"])
def stand(request: pytest.FixtureRequest, two_storages: Site) -> Iterator[Stand]:
    """Put right after the test: both hosts are up, nothing runs, only the two golden volumes are there."""
    site = two_storages
    if request.param == "nfs":
        yield Stand(site, "nfs1", "storage", base="golden", cannot=("resize",))
    else:
        yield Stand(site, "lvm1", "storage2", base="golden-lvm")
    for host in ("storage", "storage2"):
        site.lab.power(host, "on")
    for item in site("operation", "list", "--sort=-id", "--limit", "10")["items"]:
        if item["status"] in ("queued", "running", "undoing"):
            site.operation(item["id"])
    for item in site("appliance", "list")["items"]:
        if item["phase"] == "running":
            site("appliance", "stop", item["name"])
        site("appliance", "remove", item["name"])
    for item in site("image", "list")["items"]:
        site("image", "remove", item["name"])
    for item in site("volume", "list", "--sort=-id")["items"]:
        if not item["name"].startswith("golden"):
            site("volume", "remove", item["name"])


def moment(what: str) -> float:
    return MOMENTS[share.number(share.head(), what) % len(MOMENTS)]


def cut_power_during(stand: Stand, *words: str) -> dict[str, Any]:
    """Ask for an operation, cut the power once a step of it acts on the host, switch it on again; the end."""
    site = stand.site
    after = moment(f"{stand.storage} {' '.join(words)}")
    asked = site(*words, "--no-wait")

    def acting() -> bool:
        now = site("operation", "show", str(asked["id"]))
        ended = now["status"] in ("done", "failed")
        return ended or any(step["kind"] == "run" and step["status"] == "acting" for step in now["steps"])

    eventually(acting, 120, f"a step of {words} on the host", site.state, pause=0.02)
    time.sleep(after)
    site.lab.power(stand.host, "off")
    time.sleep(AWAY_SECONDS)
    site.lab.power(stand.host, "on")
    ended = site.operation(asked["id"], seconds=900)
    print(f"{stand.storage}: power cut {after} s into {' '.join(words)}: {ended['status']}")
    assert ended["status"] in ("done", "failed"), site.state()
    return ended


def nothing_left_over(stand: Stand) -> None:
    """By the storage's own check and audit, which fail for any finding."""
    stand.site("storage", "check", stand.storage)
    stand.site("storage", "audit", stand.storage)
    assert stand.site("operation", "list", "--status", "attention")["items"] == []


def is_there(site: Site, name: str) -> bool:
    return any(item["name"] == name for item in site("volume", "list", "--where", f"name={name}")["items"])


@pytest.mark.parametrize("verb", VERBS)
def test_an_operation_on_a_volume_completes_or_is_undone(stand: Stand, verb: str) -> None:
    if verb in stand.cannot:
        pytest.skip(f"{stand.storage} cannot {verb}: its btrfs has no quotas")
    site, size = stand.site, ("--size-mb", str(SIZE_MB))
    if verb in ("resize", "remove"):
        site("volume", "clone", stand.base, "--name", "v1")
    archive = ("--archive", site.ingredients.archive.name)
    words = {
        "create": ("volume", "create", "--name", "v1", "--storage-id", stand.storage, *size),
        "import": ("volume", "import", "--name", "v1", "--storage-id", stand.storage, *archive, *size),
        "clone": ("volume", "clone", stand.base, "--name", "v1"),
        "snapshot": ("volume", "snapshot", stand.base, "--name", "v1"),
        "resize": ("volume", "resize", "v1", "--size-mb", str(SIZE_MB + 200)),
        "remove": ("volume", "remove", "v1"),
    }
    ended = cut_power_during(stand, *words[verb])
    nothing_left_over(stand)
    done = ended["status"] == "done"
    if verb == "remove":
        assert done, "a removal goes forward"
        assert not is_there(site, "v1")
    elif verb == "resize":
        assert site("volume", "show", "v1")["size_mb"] in (SIZE_MB, SIZE_MB + 200)
    else:
        assert is_there(site, "v1") == done
    if verb != "remove" and not is_there(site, "v1"):
        site("volume", "clone", stand.base, "--name", "v1")  # the name is free again, and the pool works
        nothing_left_over(stand)


def test_a_start_and_a_stop_complete_or_are_undone(stand: Stand) -> None:
    """Access is granted in the first and taken back in the second."""
    site = stand.site
    (machine,) = site.idle()
    site("volume", "clone", stand.base, "--name", "web")
    site("image", "create", "--name", "web", "--volume-id", "web")
    site("appliance", "create", "--name", "web", "--image-id", "web", "--resource-id", machine["name"])
    started = cut_power_during(stand, "appliance", "start", "web")
    nothing_left_over(stand)
    assert site.appliance("web")["phase"] == ("running" if started["status"] == "done" else "stopped")
    if started["status"] == "failed":
        assert site.leases() == []
        site.idle()
        site("appliance", "start", "web")
    page = site.page(machine["address"])
    stopped = cut_power_during(stand, "appliance", "stop", "web")
    assert stopped["status"] == "done", "a stop goes forward"
    nothing_left_over(stand)
    assert site.leases() == []
    site.idle()
    site("appliance", "start", "web")
    assert site.page(machine["address"]) == {**page, "boots": str(int(page["boots"]) + 1)}
    site("appliance", "stop", "web")
    site.idle()


def test_a_running_root_survives_an_outage_of_a_minute(stand: Stand) -> None:
    site = stand.site
    (machine,) = site.idle()
    site("volume", "clone", stand.base, "--name", "web")
    site("image", "create", "--name", "web", "--volume-id", "web")
    site("appliance", "create", "--name", "web", "--image-id", "web", "--resource-id", machine["name"])
    site("appliance", "start", "web")
    before = site.page(machine["address"])
    start_writing(site, machine["address"])
    site.lab.power(stand.host, "off")
    time.sleep(OUTAGE_SECONDS)
    assert site.appliance("web")["phase"] == "running"
    site.lab.power(stand.host, "on")

    def answers() -> bool:  # its SSH server runs from the root that was away
        return "status=0" in site.ssh(machine["address"], "cat /var/counter", check=False)

    eventually(answers, 240, "an answer by SSH", site.state)
    count = written(site, machine["address"], after=10, seconds=240)
    written(site, machine["address"], after=count + 20, seconds=240)
    stall = longest_stall(site, machine["address"])
    print(f"{stand.storage}: the longest pause between two writes was {stall:.1f} s, {count} were made by then")
    assert stall > OUTAGE_SECONDS / 2, "the host was not away"
    assert site.page(machine["address"]) == before
    site("appliance", "stop", "web")
    nothing_left_over(stand)
    site.idle()
