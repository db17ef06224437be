"""A storage host with nfs-ganesha as a subject of the conformance suite, whatever pool it keeps."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

from openqrm.testing.access_nfs import NfsAccess
from openqrm.testing.storage_host import STORAGE

if TYPE_CHECKING:
    from openqrm.plugin_api.drivers import Client
    from openqrm.testing.storage_host import RealStorage

PROGRAMS = ("ganesha.nfsd", "sshd", "nfs-cat", "mkfs.btrfs", "ip")
"""What the host and its clients are made of."""
GRACE_SECONDS = 6.0
"""After a start the lab's server opens no file for 5 s; a client that gives up then was not refused access."""
SMALL = "/srv/small"
"""A directory with little room, made by `small_directory`."""
_NUMBERS = itertools.count(60_001)
_BY_HAND = """
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


def host_of(storage: RealStorage) -> dict[str, Any]:
    """What a subject is told of the host, whatever runs on it; `hosts` has to be closed."""

    async def crash() -> None:
        await asyncio.to_thread(storage.restart_host)

    return {
        "hosts": storage.hosts(),
        "host": STORAGE,
        "address": storage.address,
        "dead_host": STORAGE + 1,
        "set_host_link": lambda up: storage.set_link(up=up),
        "crash": crash,
    }


def server_of(storage: RealStorage) -> dict[str, Any]:
    """The same of one that exports by nfs-ganesha, and of the machines beside it."""

    async def restart() -> None:
        await asyncio.to_thread(storage.kill_nfs_server)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(storage.wait_for_nfs_server)
        await asyncio.sleep(GRACE_SECONDS)

    async def crash() -> None:
        await asyncio.to_thread(storage.restart_host)
        await asyncio.sleep(GRACE_SECONDS)

    async def grant_by_hand(location: str, client: Client) -> None:
        number = str(next(_NUMBERS))
        await asyncio.to_thread(storage.inside, "sh", "-euc", _BY_HAND, "sh", location, client.address, number)

    return host_of(storage) | {
        "clients": tuple(machine.client() for machine in storage.clients),
        "access": NfsAccess(storage.clients),
        "restart": restart,
        "crash": crash,
        "grant_by_hand": grant_by_hand,
        "packages": ("nfs-ganesha",),
    }


def small_directory(storage: RealStorage) -> dict[str, object]:
    """The settings of a directory pool that is soon full; again after each start of the host."""
    storage.inside("sh", "-ec", f"mkdir -p {SMALL}; mountpoint -q {SMALL} || mount -t tmpfs -o size=160m small {SMALL}")
    return {"directory": SMALL}
