"""The pools of logical volumes on a real storage host with device-mapper: thin, classic, and joined with exports."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.errors import CommandFailedError, ConflictError
from openqrm.plugin_api.drivers import Cap, confirmed
from openqrm.plugins.storage.aoe.plugin import PLUGIN as AOE
from openqrm.plugins.storage.iscsi.plugin import PLUGIN as ISCSI
from openqrm.plugins.storage.lvm.plugin import PLUGIN
from openqrm.plugins.storage.nfs.plugin import PLUGIN as NFS
from openqrm.testing.access_aoe import AoeAccess
from openqrm.testing.access_iscsi import IscsiAccess
from openqrm.testing.access_nfs import NfsAccess
from openqrm.testing.storage_attributes import check_attributes_are_listed
from openqrm.testing.storage_machine import DEAD, STORAGE, RealStorageMachine, storage_machine
from openqrm.testing.storage_subject import Subject
from openqrm.testing.storage_suite import ExportSuite, PoolSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from openqrm.plugin_api.drivers import Client

# An emulated machine: a verb takes one to three seconds, and some tests have dozens.
pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]
THIN: dict[str, object] = {"volume_group": "vg0", "thin_pool_mb": 6000, "default_size_mb": 256}
CLASSIC: dict[str, object] = {"volume_group": "vg0", "thin": False, "default_size_mb": 256}
SMALL_THIN: dict[str, object] = {
    "volume_group": "vg0",
    "thin_pool": "small",
    "thin_pool_mb": 160,
    "default_size_mb": 80,
}
BACK_SECONDS = 5.0
"""An exporter that was killed serves again by then."""
KILL = """
for process in /proc/[0-9]*; do
    [ "$(cat "$process/comm" 2>/dev/null)" != "$1" ] || kill -9 "${process#/proc/}"
done
"""
# What the service of python3-rtslib-fb does on a Debian host; this machine has no service manager.
RESTORE = """
[ ! -e /etc/openqrm/boot.d/50-lio ] || exit 0
cat >/etc/openqrm/boot.d/50-lio <<END
#!/bin/sh
modprobe -a iscsi_target_mod loop
[ ! -s /etc/rtslib-fb-target/saveconfig.json ] || targetctl restore
END
chmod 755 /etc/openqrm/boot.d/50-lio
/etc/openqrm/boot.d/50-lio
sync
"""
# What /etc/init.d/openqrm-aoe does on a host without systemd; the init of this machine looks elsewhere.
START_EXPORTERS = """
[ ! -e /etc/openqrm/boot.d/50-aoe ] || exit 0
cat >/etc/openqrm/boot.d/50-aoe <<END
#!/bin/sh
[ ! -e /var/lib/openqrm/aoe/exporter ] || sh /var/lib/openqrm/aoe/exporter start
END
chmod 755 /etc/openqrm/boot.d/50-aoe
sync
"""
GRACE_SECONDS = 11.0
"""After a start the machine's NFS server opens no file for 10 s."""
# What all volumes take of the group: of a thin pool or a classic snapshot what is written.
USED = """
lvs --noheadings --units k --nosuffix --separator '|' -o lv_size,data_percent,pool_lv vg0 |
    awk -F '|' '$3 == "" { sum += $2 == "" ? $1 : $1 * $2 / 100 } END { printf "%d\\n", sum }'
"""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStorageMachine]:
    with storage_machine(tmp_path_factory.mktemp("lvm"), f"l{os.getpid() % 100000}") as running:
        yield running


@pytest.fixture
async def given(storage: RealStorageMachine) -> AsyncIterator[dict[str, Any]]:
    async def used_kb() -> int:
        return int(await asyncio.to_thread(storage.shell, USED))

    async def crash() -> None:
        await asyncio.to_thread(storage.power_off)
        await asyncio.to_thread(storage.power_on)

    with storage.controller_network():
        hosts = storage.hosts()
        yield {
            "hosts": hosts,
            "host": STORAGE,
            "address": storage.address,
            "dead_host": DEAD,
            "used_kb": used_kb,
            "set_host_link": lambda up: storage.set_link(up=up),
            "crash": crash,
            "host_kind": "storage machine",
            "packages": ("lvm2", "thin-provisioning-tools"),
        }
        await hosts.close()


class TestLvm(PoolSuite):
    """The conformance suite of the pool for block devices, thin."""

    @pytest.fixture
    def subject(self, given: dict[str, Any]) -> Subject:
        return Subject.alone(PLUGIN, "lvm", variant="thin", settings=THIN, small_settings=SMALL_THIN, **given)

    async def test_what_is_not_ours_is_not_removed(self, subject: Subject) -> None:
        volume = subject.volume()
        await subject.shell('lvcreate -y -L 12m -n "$1" vg0', volume.name)
        assert volume.name not in await subject.names()
        with pytest.raises(CommandFailedError, match="not ours to remove"):
            await subject.runner.do(await subject.remove(volume))
        await subject.shell('lvchange --addtag openqrm "vg0/$1"', volume.name)
        assert volume.name in await subject.names()
        await subject.drop(volume)
        assert (
            await subject.shell("lvs --noheadings -o lv_name vg0/$1 2>/dev/null || echo gone", volume.name) == "gone\n"
        )

    async def test_a_source_outside_of_the_thin_pool_is_copied(self, subject: Subject) -> None:
        source, copy = subject.volume(), subject.volume()
        await subject.shell('lvcreate -y -L 64m -n "$1" --addtag openqrm vg0', source.name)
        await subject.put_mark(source, "thick")
        await subject.runner.do(await subject.clone(source, copy))
        assert await subject.mark(copy) == "thick"
        assert (await subject.shell('lvs --noheadings -o pool_lv "vg0/$1"', copy.name)).strip() == "openqrm"
        await subject.drop(source, copy)


class TestLvmClassic(PoolSuite):
    """The pool for block devices without thin volumes."""

    @pytest.fixture
    def subject(self, given: dict[str, Any]) -> Subject:
        return Subject.alone(PLUGIN, "lvm", settings=CLASSIC, variant="classic", **given)

    async def test_copies_share_nothing_and_snapshots_do(self, subject: Subject) -> None:
        facts = await subject.pool_facts()
        assert not confirmed(subject.pool, Cap.CLONE_COW, subject.context(), facts)
        assert confirmed(subject.pool, Cap.SNAPSHOT, subject.context(), facts)

    async def test_a_volume_in_use_is_copied_as_it_was(self, subject: Subject) -> None:
        """What is written meanwhile is not in the copy; the snapshot that it is read from is gone afterwards."""
        source, copy = await subject.made("before"), subject.volume()
        hold = '(exec 3<"$1"; exec sleep 600) >/dev/null 2>&1 </dev/null & echo $!'
        holder = (await subject.shell(hold, subject.where(source))).strip()
        await subject.runner.do(await subject.clone(source, copy))
        assert await subject.mark(copy) == "before"
        assert await subject.leftovers() == set()
        await subject.shell('kill "$1"; sleep 0.5', holder)
        await subject.drop(source, copy)

    async def test_a_snapshot_keeps_its_source(self, subject: Subject) -> None:
        """The source is not removed under it; a snapshot that ran out of room is no source for a copy."""
        source, snapshot = await subject.made("one"), subject.volume(size_mb=8)
        await subject.runner.do(await subject.snapshot(source, snapshot))
        with pytest.raises(CommandFailedError, match="snapshots that need it"):
            await subject.drop(source)
        await subject.shell('dd if=/dev/zero of="$1" bs=1M count=20 oflag=direct 2>/dev/null', subject.where(source))
        await subject.shell(
            "for i in $(seq 50); do lvs --noheadings -o data_percent vg0/$1 | grep -q 100 && break; sleep 0.2; done",
            snapshot.name,
        )
        with pytest.raises(ConflictError, match="its content is lost"):
            await subject.clone(snapshot, subject.volume())
        await subject.drop(snapshot, source)


class TestLvmTreeClassic(PoolSuite):
    """The pool for trees without thin volumes."""

    @pytest.fixture
    def subject(self, given: dict[str, Any]) -> Subject:
        return Subject.alone(PLUGIN, "lvm-tree", settings=CLASSIC, variant="classic", **given)


class TestLvmTree(PoolSuite):
    """The conformance suite of the pool for trees, thin."""

    @pytest.fixture
    def subject(self, given: dict[str, Any]) -> Subject:
        return Subject.alone(PLUGIN, "lvm-tree", variant="thin", settings=THIN, small_settings=SMALL_THIN, **given)

    async def test_a_volume_is_mounted_again_when_the_host_starts(
        self, subject: Subject, storage: RealStorageMachine
    ) -> None:
        volume = await subject.made("still here")
        await subject.shell("sync")
        await asyncio.to_thread(storage.reset)
        await subject.forget_connections()
        assert await subject.shell('findmnt -no FSTYPE "$1"', subject.where(volume)) == "ext4\n"
        assert await subject.mark(volume) == "still here"
        await subject.drop(volume)
        look = 'grep -c "$1 " /etc/fstab || true; ls -d "$1" 2>/dev/null || true'
        assert await subject.shell(look, subject.where(volume)) == "0\n"

    async def test_extended_attributes_are_listed_for_what_mounts_by_nfs(self, subject: Subject) -> None:
        await check_attributes_are_listed(subject)

    async def test_copies_are_file_systems_of_their_own(self, subject: Subject) -> None:
        """An NFS server tells file systems apart by their UUID."""
        source, copy = await subject.made("one"), subject.volume()
        await subject.runner.do(await subject.clone(source, copy))
        look = 'blkid -p -s UUID -o value "/dev$1"'
        assert await subject.shell(look, subject.where(source)) != await subject.shell(look, subject.where(copy))
        await subject.drop(source, copy)


class TestLvmNfs(ExportSuite):
    """Exported by the kernel's NFS server."""

    @pytest.fixture
    def subject(self, given: dict[str, Any], storage: RealStorageMachine) -> Subject:
        async def restart() -> None:
            await asyncio.to_thread(storage.restart_nfs_server)
            await asyncio.sleep(GRACE_SECONDS)

        async def crash() -> None:
            await given["crash"]()
            await asyncio.sleep(GRACE_SECONDS)

        async def grant_by_hand(location: str, client: Client) -> None:
            options = "rw,sync,no_root_squash,no_subtree_check"
            await asyncio.to_thread(storage.inside, "exportfs", "-o", options, f"{client.address}:{location}")

        more = {
            "clients": tuple(machine.client() for machine in storage.clients),
            "access": NfsAccess(storage.clients),
            "restart": restart,
            "crash": crash,
            "grant_by_hand": grant_by_hand,
        }
        return Subject.join(PLUGIN, "lvm-tree", NFS, "nfs", settings=THIN, **(given | more))

    async def test_who_was_refused_does_not_hold_a_volume(self, subject: Subject) -> None:
        """The server remembers the place, and that it said no."""
        volume = await subject.made("mine")
        known, stranger = subject.clients[:2]
        await subject.runner.do(await subject.authorize(volume, known, 1))
        await subject.runner.do(await subject.revoke(volume, known, 1))
        assert await subject.reads(stranger, volume) is None
        await subject.drop(volume)
        assert volume.name not in await subject.names()


class TestLvmIscsi(ExportSuite):
    """Exported by the kernel's iSCSI server."""

    @pytest.fixture
    def subject(self, given: dict[str, Any], storage: RealStorageMachine) -> Subject:
        async def restart() -> None:
            await asyncio.to_thread(storage.inside, "sync")
            await asyncio.to_thread(storage.reset)

        storage.shell(RESTORE)
        more = {
            "clients": tuple(machine.client() for machine in storage.clients),
            "access": IscsiAccess(storage.clients),
            "restart": restart,
        }
        return Subject.join(PLUGIN, "lvm", ISCSI, "iscsi", settings=THIN | {"server": "lio"}, **(given | more))


class TestLvmAoe(ExportSuite):
    """Exported by vblade."""

    @pytest.fixture
    def subject(self, given: dict[str, Any], storage: RealStorageMachine) -> Subject:
        async def restart() -> None:
            await asyncio.to_thread(storage.inside, "sh", "-c", KILL, "sh", "vblade")
            await asyncio.sleep(BACK_SECONDS)

        storage.shell(START_EXPORTERS)
        more = {
            "clients": tuple(machine.client() for machine in storage.clients),
            "access": AoeAccess(storage.clients),
            "restart": restart,
        }
        return Subject.join(PLUGIN, "lvm", AOE, "aoe", settings=THIN, **(given | more))
