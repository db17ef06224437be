"""An image moves between two storages by an idle machine; an audit finds and ends what somebody exported by hand."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from openqrm.admin.lab.datacentre import STORAGE
from openqrm.admin.lab.process import children_of
from openqrm.admin.lab.state import LabSpec
from openqrm.testing.manifest import differences, manifest
from openqrm.testing.site import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openqrm.testing.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.slow_lab, pytest.mark.timeout(1500)]

POOLS = {"nfs-a": "/srv/openqrm/a", "nfs-b": "/srv/openqrm/b"}
NEEDLESS = (
    "boot usr/share/perl usr/share/perl5 usr/lib/x86_64-linux-gnu/perl* usr/lib/x86_64-linux-gnu/gconv var/lib/dpkg "
    "usr/share/bash-completion usr/lib/modules usr/share/doc usr/share/locale usr/lib/locale usr/lib/terminfo "
    "usr/lib/apt var/lib/apt usr/share/keyrings usr/share/common-licenses usr/share/pam usr/lib/systemd"
)
"""What this appliance does not need: an emulated machine copies file by file."""
SPECIAL = (
    "cd {place} && rm -rf {needless} && echo IMAGE_MODULES=loaded >etc/openqrm/image.env"
    " && mkdir -p opt/odd && cd opt/odd && echo secret >key && chown 1234:4321 key && chmod 4710 key"
    " && ln key second-name && ln -s /etc/hostname link && mkfifo pipe && truncate -s 8M hole && echo end >>hole"
    " && mkdir locked && chmod 0700 locked && chown 7:7 locked && touch -d 2001-02-03 locked/old"
)
MOUNTED = ("dev/", "proc/", "run/", "sys/", "tmp/")
BY_HAND = (
    "file=/etc/ganesha/exports.d/by-hand.conf; printf 'EXPORT {{ Export_Id = 777; Path = {path}; Pseudo = {path};"
    " Protocols = 4; Access_Type = NONE; FSAL {{ Name = VFS; }}"
    " CLIENT {{ Clients = 10.99.0.99; Access_Type = RW; Squash = No_Root_Squash; }} }}\\n' >$file;"
    " gdbus call --system --dest org.ganesha.nfsd --object-path /org/ganesha/nfsd/ExportMgr"
    " --method org.ganesha.nfsd.exportmgr.AddExport $file 'EXPORT(Export_Id=777)'"
)


@pytest.fixture(scope="module")
def two_storages(site_up: Callable[[LabSpec], Site]) -> Site:
    """One machine, and two directories of the storage host as storages; image `web` is on the first."""
    site = site_up(LabSpec(name="move", nodes=1, api_port=0))
    host = str(site("storage", "show", "nfs1")["resource_id"])
    site("volume", "remove", "golden")
    site("storage", "remove", "nfs1")  # a directory belongs to one storage, and this host has one file system
    for name, directory in POOLS.items():
        site.on_storage(f"mkdir -p {directory}")
        kind = ("--type", "nfs-storage", "--resource-id", host, "--settings", f"directory={directory}")
        site("storage", "create", "--name", name, *kind)
    archive = site.ingredients.archive.name
    site("volume", "import", "--name", "web", "--storage-id", "nfs-a", "--archive", archive)
    site("image", "create", "--name", "web", "--volume-id", "web")
    site.on_storage(SPECIAL.format(place=f"{POOLS['nfs-a']}/web", needless=NEEDLESS))
    site.power("on")
    site.idle()
    return site


def place(site: Site) -> tuple[str, str]:
    """The storage that the image is on, and the other one."""
    volume = site("volume", "show", str(site("image", "show", "web")["volume_id"]))
    here = site("storage", "show", str(volume["storage_id"]))["name"]
    return here, next(name for name in POOLS if name != here)


def tree(site: Site) -> dict[str, str]:
    """Everything in the image, in lines to compare; without its root, whose time a transfer's mark changes, and what is
    in the directories that a running system mounts."""
    record = site.lab.running(STORAGE)
    assert record is not None
    (inner,) = children_of(record.pid)
    here, _ = place(site)
    found = manifest(Path(f"/proc/{inner}/root{POOLS[here]}/web"), leave_out=("opt/odd/ballast",)) | {".": ""}
    return {name: line for name, line in found.items() if not name.startswith(MOUNTED)}


@contextmanager
def running(site: Site) -> Iterator[str]:
    """An appliance on the image; its machine's address."""
    (machine,) = site.idle()
    site("appliance", "create", "--name", "web", "--image-id", "web")
    site("appliance", "start", "web")
    yield machine["address"]
    site("appliance", "stop", "web")
    site("appliance", "remove", "web")
    site.idle()
    site.nothing_left()


def test_an_image_moves_whole_and_starts_where_it_is(two_storages: Site) -> None:
    site = two_storages
    here, there = place(site)
    before = tree(site)
    assert "same-as=opt/odd/key" in before["opt/odd/second-name"]
    began = time.monotonic()
    assert site("image", "move", "web", "--to", there)["status"] == "done"
    print(f"moved {len(before)} files in {time.monotonic() - began:.1f} s")
    assert place(site) == (there, here)
    assert differences(before, tree(site)) == []
    assert [(one["name"], one["phase"]) for one in site("volume", "list")["items"]] == [("web", "ready")]
    assert site.on_storage(f"ls {POOLS[here]}").strip() == ""
    site.nothing_left()
    for storage in POOLS:
        assert site("storage", "check", storage)["result"]["report"]["findings"] == []
        assert site("storage", "audit", storage)["result"]["report"]["findings"] == []
    with running(site) as address:
        assert site.page(address)["host"] == "web"


def test_an_audit_ends_what_was_exported_by_hand_and_nothing_else(two_storages: Site) -> None:
    site = two_storages
    here, _ = place(site)
    path = f"{POOLS[here]}/web/opt"
    with running(site) as address:
        site.on_storage(BY_HAND.format(path=path))
        found = site.refusal("storage", "audit", here)
        assert found.code == 8
        (finding,) = found.problem["result"]["report"]["findings"]
        assert finding["text"] == f"10.99.0.99 may write {path}: it was made by hand"
        fixed = site("storage", "audit", here, "--fix")["result"]["report"]
        assert fixed["findings"] == []
        assert [one["text"] for one in fixed["fixed"]] == [finding["text"]]
        assert path not in site.grants().split()
        assert address in site.grants()
        assert site.page(address)["host"] == "web"


def test_a_move_that_is_called_off_leaves_the_image_where_it_was(two_storages: Site) -> None:
    site = two_storages
    here, there = place(site)
    before = tree(site)
    boot = site.idle()[0]["boot_id"]
    site.on_storage(f"dd if=/dev/urandom of={POOLS[here]}/web/opt/odd/ballast bs=1M count=200 2>/dev/null")
    operation = site("image", "move", "web", "--to", there, "--no-wait")
    mark = f"cat {POOLS[there]}/web/.openqrm-transfer 2>/dev/null || true"
    eventually(lambda: site.on_storage(mark), 120, "copying has begun", site.state)
    site("operation", "cancel", str(operation["id"]))
    assert site.operation(operation["id"], 600)["status"] == "failed"
    (machine,) = site.idle()
    assert machine["boot_id"] != boot, "the machine was restarted before anything was taken from it"
    site.nothing_left()
    assert site.on_storage(f"ls {POOLS[there]}").strip() == ""
    site.on_storage(f"rm {POOLS[here]}/web/opt/odd/ballast")
    assert differences(before | {"opt/odd": ""}, tree(site) | {"opt/odd": ""}) == []
