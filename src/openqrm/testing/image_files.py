"""Image files on the lab's storage host, joined with an export of block devices, for the conformance suite."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from openqrm.plugins.storage.file.plugin import PLUGIN as FILE
from openqrm.testing.storage_host import STORAGE, RealStorage
from openqrm.testing.storage_subject import SMALL_MB, Subject

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from openqrm.plugin_api.drivers import Client
    from openqrm.plugin_api.plugin import Plugin
    from openqrm.testing.access import Access

POOL = "/srv/openqrm/images"
SMALL_POOL = "/srv/small"
ELSEWHERE = "/var/tmp/elsewhere"  # noqa: S108  # of the storage host
BACK_SECONDS = 3.0
"""A server that was killed, or a host that was, serves again by then."""
PREPARE = f"""
mkdir -p {POOL} {SMALL_POOL}
truncate -s {SMALL_MB + 20}M /var/lib/small.img
mkfs.ext4 -q /var/lib/small.img
echo /var/lib/small.img {SMALL_POOL} ext4 loop 0 0 >>/etc/fstab
mount {SMALL_POOL}
truncate -s 1M {ELSEWHERE}
"""
_KILL = """
for process in /proc/[0-9]*; do
    [ "$(cat "$process/comm" 2>/dev/null)" != "$1" ] || kill -9 "${process#/proc/}"
done
"""


def kill_servers(storage: RealStorage, server: str) -> None:
    """kill -9 of every process of that name on the storage host."""
    storage.inside("sh", "-c", _KILL, "sh", server)


@asynccontextmanager
async def image_files(
    storage: RealStorage,
    plugin: Plugin,
    export: str,
    access: Access,
    server: str,
    grant_by_hand: Callable[[str, Client], Awaitable[None]],
) -> AsyncIterator[Subject]:
    """Pool `file` joined with an export whose servers are processes called `server`."""

    async def restart() -> None:
        """Every server is killed; what watches over them starts them again."""
        await asyncio.to_thread(kill_servers, storage, server)
        await asyncio.sleep(BACK_SECONDS)

    async def crash() -> None:
        await asyncio.to_thread(storage.restart_host)
        await asyncio.sleep(BACK_SECONDS)

    with storage.controller_network():
        hosts = storage.hosts()
        yield Subject.join(
            FILE,
            "file",
            plugin,
            export,
            hosts=hosts,
            host=STORAGE,
            address=storage.address,
            dead_host=STORAGE + 1,
            clients=tuple(machine.client() for machine in storage.clients),
            access=access,
            restart=restart,
            crash=crash,
            set_host_link=lambda up: storage.set_link(up=up),
            grant_by_hand=grant_by_hand,
            small_settings={"directory": SMALL_POOL, "overcommit": True},
            settings={"directory": POOL},
            packages=({"nbdkit": "nbdkit", "vblade": "vblade"}[server],),
        )
        await hosts.close()
