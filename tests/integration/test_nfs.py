"""The `nfs-storage` plug-in on a real storage host: sshd, nfs-ganesha, a file system with reflinks, two clients."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from openqrm.plugin_api.drivers import Cap, confirmed
from openqrm.plugins.storage.dir.plugin import PLUGIN as DIR
from openqrm.plugins.storage.nfs.plugin import PLUGIN
from openqrm.testing.access_nfs import NfsAccess
from openqrm.testing.storage_host import STORAGE, RealStorage, real_storage
from openqrm.testing.storage_subject import Subject
from openqrm.testing.storage_suite import StorageSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from openqrm.plugin_api.drivers import Client

GRACE_SECONDS = 6.0
"""After a start the lab's server opens no file for 5 s; a client that gives up then was not refused access."""
NEEDED = ("ganesha.nfsd", "sshd", "nfs-cat", "mkfs.btrfs", "ip")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStorage]:
    missing = [name for name in NEEDED if shutil.which(name, path="/usr/sbin:/sbin:" + os.environ["PATH"]) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root and: {', '.join(missing)}")
    with real_storage(
        tmp_path_factory.mktemp("nfs"), f"n{os.getpid() % 100000}"
    ) as running:  # two runs may share a machine
        yield running


SMALL = "/srv/small"
BY_HAND = """
path=$1 client=$2 number=$3
file=/etc/ganesha/exports.d/theirs-$number.conf
cat >"$file" <<END
EXPORT {
    Export_Id = $number; Path = $path; Pseudo = /theirs/$number; Protocols = 4; Access_Type = NONE;
    FSAL { Name = VFS; }
    CLIENT { Clients = $client; Access_Type = RW; Squash = No_Root_Squash; }
}
END
gdbus call --system --dest org.ganesha.nfsd --object-path /org/ganesha/nfsd/ExportMgr \
    --method org.ganesha.nfsd.exportmgr.AddExport "$file" "EXPORT(Export_Id=$number)"
"""


@pytest.fixture
async def subject(storage: RealStorage) -> AsyncIterator[Subject]:
    async def restart() -> None:
        await asyncio.to_thread(storage.kill_nfs_server)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(storage.wait_for_nfs_server)
        await asyncio.sleep(GRACE_SECONDS)

    async def crash() -> None:
        await asyncio.to_thread(storage.restart_host)
        await asyncio.sleep(GRACE_SECONDS)

    async def grant_by_hand(location: str, client: Client) -> None:
        number = str(next(numbers))
        await asyncio.to_thread(storage.inside, "sh", "-euc", BY_HAND, "sh", location, client.address, number)

    numbers = itertools.count(60_001)
    with storage.controller_network():
        hosts = storage.hosts()
        small = f"mkdir -p {SMALL}; mountpoint -q {SMALL} || mount -t tmpfs -o size=160m small {SMALL}"
        storage.inside("sh", "-c", small)
        yield Subject.join(
            DIR,
            "dir",
            PLUGIN,
            "nfs",
            hosts=hosts,
            host=STORAGE,
            address=storage.address,
            dead_host=STORAGE + 1,
            clients=tuple(machine.client() for machine in storage.clients),
            access=NfsAccess(storage.clients),
            restart=restart,
            set_host_link=lambda up: storage.set_link(up=up),
            crash=crash,
            grant_by_hand=grant_by_hand,
            small_settings={"directory": SMALL},
            packages=("nfs-ganesha",),
            variant="ganesha",
        )
        await hosts.close()


class TestNfsStorage(StorageSuite):
    """The conformance suite."""


async def test_what_this_host_has_is_seen(subject: Subject, storage: RealStorage) -> None:
    export_facts, pool_facts = await subject.export_facts(), await subject.pool_facts()
    assert confirmed(subject.export, Cap.REVOKE_PROOF, subject.context(), export_facts)
    assert confirmed(subject.pool, Cap.CLONE_COW, subject.context(), pool_facts) == (storage.pool_type != "directory")
    assert confirmed(subject.pool, Cap.CLONE, subject.context(), pool_facts)
