"""The `nfs-storage` plug-in with the kernel's NFS server, on a storage machine with a kernel of its own."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from openqrm.plugin_api.drivers import Cap, confirmed
from openqrm.plugins.storage.dir.plugin import PLUGIN as DIR
from openqrm.plugins.storage.nfs.plugin import PLUGIN
from openqrm.testing.access_nfs import NfsAccess
from openqrm.testing.storage_machine import DEAD, STORAGE, RealStorageMachine, storage_machine
from openqrm.testing.storage_subject import Subject
from openqrm.testing.storage_suite import StorageSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from openqrm.plugin_api.drivers import Client

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]
GRACE_SECONDS = 11.0
"""After a start the machine's server opens no file for 10 s; a client that gives up then was not refused access."""

SMALL = "/srv/small"
MAKE_SMALL = """
lvcreate -q -y -L 160M -n small vg0
mkfs.ext4 -q -m 0 /dev/vg0/small
mkdir "$1"
echo "/dev/vg0/small $1 ext4 defaults 0 0" >>/etc/fstab
mount "$1"
"""
"""A pool of its own that is soon full."""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStorageMachine]:
    with storage_machine(tmp_path_factory.mktemp("kernel"), f"k{os.getpid() % 100000}") as running:
        running.shell(MAKE_SMALL, SMALL)
        yield running


@pytest.fixture
async def subject(storage: RealStorageMachine) -> AsyncIterator[Subject]:
    async def restart() -> None:
        await asyncio.to_thread(storage.restart_nfs_server)
        await asyncio.sleep(GRACE_SECONDS)

    async def crash() -> None:
        await asyncio.to_thread(storage.power_off)
        await asyncio.to_thread(storage.power_on)
        await asyncio.sleep(GRACE_SECONDS)

    async def grant_by_hand(location: str, client: Client) -> None:
        options = "rw,sync,no_root_squash,no_subtree_check"
        await asyncio.to_thread(storage.inside, "exportfs", "-o", options, f"{client.address}:{location}")

    with storage.controller_network():
        hosts = storage.hosts()
        yield Subject.join(
            DIR,
            "dir",
            PLUGIN,
            "nfs",
            hosts=hosts,
            host=STORAGE,
            address=storage.address,
            dead_host=DEAD,
            clients=tuple(machine.client() for machine in storage.clients),
            access=NfsAccess(storage.clients),
            restart=restart,
            set_host_link=lambda up: storage.set_link(up=up),
            crash=crash,
            grant_by_hand=grant_by_hand,
            small_settings={"directory": SMALL},
            host_kind="storage machine",
            packages=("nfs-kernel-server", "linux"),
            variant="kernel",
        )
        await hosts.close()


class TestKernelNfs(StorageSuite):
    """The conformance suite."""


async def test_what_this_host_has_is_seen(subject: Subject) -> None:
    assert confirmed(subject.export, Cap.REVOKE_PROOF, subject.context(), await subject.export_facts())
    assert not confirmed(subject.pool, Cap.CLONE_COW, subject.context(), await subject.pool_facts())
