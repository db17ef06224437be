"""Clones of golden images, as the controller makes them: the steps of the pools' drivers, over SSH, behind the gate.

10 GB on btrfs, on thin LVM (beside 100 MB, to see that the size does not matter) and copied block by block. btrfs and
the copy are taken on the lab's storage host, which has this machine's kernel; LVM on the lab's storage machine, which
is emulated: its figures tell how clones compare with each other, and not how fast they are on a real machine.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any

from openqrm.plugins.storage.btrfs.plugin import PLUGIN as BTRFS
from openqrm.plugins.storage.dir.plugin import PLUGIN as DIR
from openqrm.plugins.storage.lvm.plugin import PLUGIN as LVM
from openqrm.testing import storage_host, storage_machine
from openqrm.testing.storage_subject import Subject

if TYPE_CHECKING:
    from bench.installation import World
    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.plugin import Plugin
    from openqrm.remote.hosts import RemoteHosts

GOLDEN_MB, SMALL_MB = 10240, 100
ROUNDS = 7
WRITE_SECONDS = 3600.0
TREE = 'for number in $(seq "$2"); do head -c 2M /dev/zero >"$1/$number"; done; sync -f "$1"'
"""Files of 2 MB, without holes: neither file system compresses or shares what is written."""
DEVICE = 'dd if=/dev/zero of="$1" bs=4M count="$2" oflag=direct conv=fsync 2>/dev/null'
"""A thin volume has a block for whatever was written, zeros too."""
PLAIN = "/var/lib/plain"
"""A directory of the storage host on this machine's own file system."""


def run(world: World) -> dict[str, Any]:
    """Milliseconds of each clone."""
    on_host = asyncio.run(_on_host(world))
    on_machine = asyncio.run(_on_machine(world))
    small, large = (statistics.median(on_machine[name]) for name in ("lvm_thin_100m", "lvm_thin_10g"))
    return {
        "clone_10g_btrfs_ms": round(statistics.median(on_host["btrfs_10g"]), 1),
        "clone_10g_copy_ms": round(statistics.median(on_host["copy_10g"])),
        "clone_10g_lvmthin_ms": round(large),
        "clone_100m_lvmthin_ms": round(small),
        "clone_lvmthin_10g_to_100m": round(large / small, 3),
        "details": {"ms": on_host | on_machine, "rounds": ROUNDS, "lvm_on": "an emulated machine"},
    }


async def _on_host(world: World) -> dict[str, list[float]]:
    with storage_host.real_storage(world.directory / "host", "bclone", clients=0) as storage:
        storage.inside("mkdir", PLAIN)
        with storage.controller_network():
            hosts = storage.hosts()
            try:
                btrfs = _subject(BTRFS, "btrfs", hosts, storage.address, {})
                shared = await _tree(btrfs, ROUNDS)
                plain = _subject(DIR, "dir", hosts, storage.address, {"directory": PLAIN})
                return {"btrfs_10g": shared, "copy_10g": await _tree(plain, 1)}
            finally:
                await hosts.close()


async def _on_machine(world: World) -> dict[str, list[float]]:
    """Large and small by turns, so that whatever else the machine does befalls both alike."""
    machine = storage_machine.storage_machine(world.directory / "machine", "bcloneb", clients=0)
    with machine as storage, storage.controller_network():
        hosts = storage.hosts()
        try:
            thin = _subject(LVM, "lvm", hosts, storage.address, {"volume_group": "vg0"})
            sources = {}
            for name, size in (("lvm_thin_100m", SMALL_MB), ("lvm_thin_10g", GOLDEN_MB)):
                sources[name] = thin.volume(size)
                await thin.runner.do(await thin.create(sources[name]))
                await thin.shell(DEVICE, thin.where(sources[name]), str(size // 4), seconds=WRITE_SECONDS)
            taken: dict[str, list[float]] = {name: [] for name in sources}
            for _ in range(ROUNDS):
                for name, source in sources.items():
                    taken[name].append(await _clone(thin, source))
            return taken
        finally:
            await hosts.close()


def _subject(plugin: Plugin, pool: str, hosts: RemoteHosts, address: str, settings: dict[str, Any]) -> Subject:
    given = {"hosts": hosts, "host": storage_host.STORAGE, "dead_host": storage_machine.DEAD, "address": address}
    return Subject.alone(plugin, pool, settings=settings, **given)


async def _tree(subject: Subject, rounds: int) -> list[float]:
    source = subject.volume()
    await subject.runner.do(await subject.create(source))
    await subject.shell(TREE, subject.where(source), str(GOLDEN_MB // 2), seconds=WRITE_SECONDS)
    taken = [await _clone(subject, source) for _ in range(rounds)]
    await subject.drop(source)
    return taken


async def _clone(subject: Subject, source: Volume) -> float:
    """Milliseconds from the first step to the last; the clone is removed."""
    copy = subject.volume(source.size_mb)
    steps = await subject.clone(source, copy)
    began = time.monotonic()
    await subject.runner.do(steps)
    spent = (time.monotonic() - began) * 1000
    await subject.drop(copy)
    return round(spent, 1)
