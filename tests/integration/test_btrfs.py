"""The pool of btrfs subvolumes on a real storage host, and its volumes exported by nfs-ganesha."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from openqrm.plugins.storage.btrfs.plugin import PLUGIN
from openqrm.plugins.storage.nfs.plugin import PLUGIN as NFS
from openqrm.testing import needs
from openqrm.testing.nfs_storage import PROGRAMS, host_of, server_of
from openqrm.testing.storage_attributes import check_attributes_are_listed
from openqrm.testing.storage_host import RealStorage, real_storage
from openqrm.testing.storage_subject import Subject
from openqrm.testing.storage_suite import PoolSuite, StorageSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SIZED = "/srv/openqrm/sized"
"""A btrfs of its own, with quotas."""
SMALL = "/srv/openqrm/small"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStorage]:
    needs.root_and(*PROGRAMS)
    with real_storage(tmp_path_factory.mktemp("btrfs"), f"b{os.getpid() % 100000}") as running:
        if running.pool_type != "btrfs":
            needs.lacking(f"this machine's kernel mounts no btrfs: the pool is a {running.pool_type}")
        yield running


@pytest.fixture(scope="module")
def sized(storage: RealStorage) -> str:
    script = (
        f"mkdir -p {SIZED}; truncate -s 1G {SIZED}.img; mkfs.btrfs -q {SIZED}.img;"
        f" echo {SIZED}.img {SIZED} btrfs loop 0 0 >>/etc/fstab; mount {SIZED}; btrfs quota enable {SIZED};"
        f" mkdir {SMALL}; truncate -s 160M {SMALL}.img; mkfs.btrfs -q --mixed {SMALL}.img;"
        f" echo {SMALL}.img {SMALL} btrfs loop 0 0 >>/etc/fstab; mount {SMALL}"
    )
    storage.inside("sh", "-ec", script)
    return SIZED


class TestBtrfsNfs(StorageSuite):
    """The conformance suite of the join."""

    @pytest.fixture
    async def subject(self, storage: RealStorage) -> AsyncIterator[Subject]:
        with storage.controller_network():
            given = server_of(storage) | {"packages": ("btrfs-progs", "nfs-ganesha")}
            yield Subject.join(PLUGIN, "btrfs", NFS, "nfs", **given)
            await given["hosts"].close()


class TestBtrfsWithSizes(PoolSuite):
    """The pool alone, on a small file system with quotas: what is resized is held to its size."""

    @pytest.fixture
    async def subject(self, storage: RealStorage, sized: str) -> AsyncIterator[Subject]:
        with storage.controller_network():
            sizes = {"settings": {"directory": sized}, "small_settings": {"directory": SMALL}, "variant": "quotas"}
            given = host_of(storage) | {"packages": ("btrfs-progs",)} | sizes
            yield Subject.alone(PLUGIN, "btrfs", **given)
            await given["hosts"].close()

    async def test_a_volume_is_held_to_its_size(self, subject: Subject) -> None:
        volume = await subject.made(size_mb=20)
        write = 'head -c 30000000 /dev/zero | tr "\\0" x >"$1/big" 2>/dev/null && sync "$1" && echo all || echo some'
        assert await subject.in_tree(volume, write) == "some\n"
        await subject.runner.do(await subject.resize(volume, 60))
        assert await subject.in_tree(volume, write) == "all\n"
        await subject.drop(volume)


class TestBtrfsVolumes:
    """What is special about subvolumes."""

    @pytest.fixture
    async def subject(self, storage: RealStorage) -> AsyncIterator[Subject]:
        with storage.controller_network():
            given = host_of(storage)
            yield Subject.alone(PLUGIN, "btrfs", **given)
            await given["hosts"].close()

    async def test_a_volume_is_shown_again_when_the_host_starts(self, subject: Subject, storage: RealStorage) -> None:
        volume = await subject.made("still here")
        where = subject.where(volume)
        storage.host.stop(storage.record)
        storage.record = await asyncio.to_thread(storage.host.start, storage.pool_type)
        assert await subject.shell("awk -v path=\"$1\" '$5 == path { print $4 }' /proc/self/mountinfo", where) != ""
        assert await subject.mark(volume) == "still here"
        await subject.drop(volume)
        assert await subject.shell('grep -c "$1 " /etc/fstab || true', where) == "0\n"

    async def test_extended_attributes_are_listed_for_what_mounts_by_nfs(self, subject: Subject) -> None:
        await check_attributes_are_listed(subject)

    async def test_lines_of_others_in_fstab_stay(self, subject: Subject) -> None:
        await subject.shell('echo "# kept\ntmpfs /srv/openqrm/theirs tmpfs noauto 0 0" >>/etc/fstab')
        volume = await subject.made()
        assert subject.where(volume) in await subject.shell("cat /etc/fstab")
        await subject.drop(volume)
        kept = await subject.shell("tail -n 2 /etc/fstab")
        assert kept == "# kept\ntmpfs /srv/openqrm/theirs tmpfs noauto 0 0\n"

    async def test_a_volume_with_subvolumes_is_not_copied_and_is_removed_whole(self, subject: Subject) -> None:
        volume, copy = await subject.made(), subject.volume()
        await subject.in_tree(
            volume, 'cd "$1"; btrfs -q subvolume create a; btrfs -q subvolume create a/b; touch a/b/c'
        )
        steps = await subject.clone(volume, copy)
        with pytest.raises(Exception, match="which a snapshot leaves out"):
            await subject.runner.do(steps)
        await subject.runner.undo(steps)
        assert copy.name not in await subject.names()
        await subject.drop(volume)
        assert volume.name not in await subject.shell("btrfs subvolume list /srv/openqrm")
        assert await subject.leftovers() == set()
