"""Planners of the ZFS pools: facts in, steps out.

Each verb is one command on the storage host: a short shell script, given as input, which is idempotent and leaves
either nothing or the whole. It runs behind the host gate, so that it is not half overtaken by another controller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import (
    ConflictError,
    InvalidError,
    MissingDependencyError,
    NoCapacityError,
    UnsupportedError,
)
from openqrm.plugin_api.drivers import Cap, StorageContext, VolumeEntry
from openqrm.plugin_api.steps import Command, Gate, Irreversible, Run
from openqrm.plugins.storage.zfs.facts import ZfsFacts, script, zfs_fact
from openqrm.plugins.storage.zfs.plugin import ZfsSettings, ZfsTreeSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.facts import Fact, Facts
    from openqrm.plugin_api.steps import Steps

SECONDS = 600
FILL_SECONDS = 7200


class ZfsPool:
    """Volumes as zvols, handed out as block devices."""

    kind, type = "block", "volume"

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        """Free space, volumes with their sizes, leftovers."""
        return (zfs_fact(context, _pool(context)),)

    def confirms(self, capability: Cap, context: StorageContext, facts: Facts) -> bool:
        """Zvols depend on ZFS being in the kernel: there are none with zfs-fuse."""
        del capability
        found = facts.get(zfs_fact(context, _pool(context)))
        return found.free_mb is not None and (found.kernel or self.kind == "tree")

    def entries(self, context: StorageContext, facts: Facts) -> Sequence[VolumeEntry]:
        """The datasets in the storage's; a file system's size is its limit, 0 without one."""
        found = self._there(context, facts).volumes
        return [VolumeEntry(e.name, e.size_mb, self._path(context, e.name)) for e in found if e.kind == self.type]

    def leftovers(self, context: StorageContext, facts: Facts) -> Sequence[str]:
        """Snapshots of ours that no clone came of."""
        return self._there(context, facts).leftovers

    def create(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """An empty file system limited to the volume's size, or a zvol of it. NoCapacityError."""
        size = self._size(context, volume)
        self._room(context, volume, size, facts)
        return (self._make(context, volume, "create", f"Make {self.location(context, volume)}", str(size)),)

    def clone(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """A snapshot and a clone of it: the same time for any size."""
        self._there(context, facts)
        title = f"Copy {self.location(context, source)} to {self.location(context, volume)}"
        return (self._make(context, volume, "clone", title, str(volume.size_mb), source.name),)

    def snapshot(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """The same as a clone: it takes room only for what is changed."""
        return self.clone(context, source, volume, facts)

    def fill(self, context: StorageContext, volume: Volume, archive: str, facts: Facts) -> Steps:
        """Unpacked into the volume, which is rolled back to empty when that fails."""
        self._there(context, facts)
        return (self._make(context, volume, "fill", f"Unpack into {self.location(context, volume)}", archive),)

    def resize(self, context: StorageContext, volume: Volume, size_mb: int, facts: Facts) -> Steps:
        """Another limit, or a larger zvol with its file system. InvalidError, NoCapacityError."""
        there = self._there(context, facts).volume(volume.name)
        now = there.size_mb if there else volume.size_mb
        if size_mb < now:
            raise InvalidError(f"volume {volume.name} has {now} MB and cannot shrink to {size_mb} MB", field="size_mb")
        self._room(context, volume, size_mb - now, facts)
        title = f"Let {self.location(context, volume)} grow to {size_mb} MB"
        do, undo = (self._command(context, volume, "resize", str(size)) for size in (size_mb, now))
        final = Irreversible(reason="a file system is not shrunk; the room it got does no harm")
        return (self._run(context, volume, "resize", title, do, undo if self.kind == "tree" else final),)

    def remove(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """Destroyed at once; what was cloned from it lives on."""
        self._there(context, facts)
        title = f"Remove {self.location(context, volume)}"
        do, final = self._command(context, volume, "remove", "remove"), Irreversible(reason="the data is deleted")
        return (self._run(context, volume, "remove", title, do, final),)

    def location(self, context: StorageContext, volume: Volume) -> str:
        """The volume's device or directory on the host."""
        return self._path(context, volume.name)

    def _path(self, context: StorageContext, name: str) -> str:
        return f"/dev/zvol/{_pool(context).dataset}/{name}"

    def _size(self, context: StorageContext, volume: Volume) -> int:
        return volume.size_mb or _pool(context).default_size_mb

    def _make(self, context: StorageContext, volume: Volume, verb: str, title: str, *more: str) -> Run:
        do, undo = self._command(context, volume, verb, *more), self._command(context, volume, "remove", "undo")
        return self._run(context, volume, verb, title, do, undo)

    def _command(self, context: StorageContext, volume: Volume, verb: str, *more: str) -> Command:
        words = (_pool(context).dataset, volume.name, str(volume.id), self.kind, self.location(context, volume), *more)
        return Command(argv=("sh", "-s", "--", *words), input=script("pool", f"volume-{verb}"))

    def _run(
        self, context: StorageContext, volume: Volume, verb: str, title: str, do: Command, undo: Command | Irreversible
    ) -> Run:
        return Run(
            name=verb,
            title=title,
            host=context.host,
            do=do,
            undo=undo,
            gate=Gate(volume=f"volume-{volume.id}", generation=volume.generation),
            timeout=FILL_SECONDS if verb == "fill" else SECONDS,
        )

    def _there(self, context: StorageContext, facts: Facts) -> ZfsFacts:
        dataset, name = _pool(context).dataset, context.storage.name
        found = facts.get(zfs_fact(context, _pool(context)))
        if not found.tools:
            raise MissingDependencyError(
                f"the host of storage {name} has no ZFS",
                remedy="apt-get install zfsutils-linux on it (Debian contrib), or zfs-fuse",
            )
        if found.free_mb is None:
            raise ConflictError(
                f"storage {name}: there is no dataset {dataset} on its host",
                field="dataset",
                remedy=f"zpool import {dataset.split('/', maxsplit=1)[0]}; or make it: zfs create -p {dataset}",
            )
        if self.kind == "block" and not found.kernel:
            raise UnsupportedError(
                f"the host of storage {name} has no ZFS in its kernel, so it has no zvols",
                remedy="apt-get install zfs-dkms zfsutils-linux on it (Debian contrib), or use zfs-nfs",
            )
        return found

    def _room(self, context: StorageContext, volume: Volume, size_mb: int, facts: Facts) -> None:
        free = self._there(context, facts).free_mb or 0
        if size_mb > free:
            raise NoCapacityError(
                f"volume {volume.name} asks for {size_mb} MB; storage {context.storage.name} has {free} MB free",
                field="size_mb",
            )


class ZfsTreePool(ZfsPool):
    """Volumes as file systems, handed out as trees."""

    kind, type = "tree", "filesystem"

    def _path(self, context: StorageContext, name: str) -> str:
        settings = _pool(context)
        assert isinstance(settings, ZfsTreeSettings)  # noqa: S101  # the declaration's spec
        return f"{settings.directory or '/' + settings.dataset}/{name}"

    def _size(self, context: StorageContext, volume: Volume) -> int:
        del context
        return volume.size_mb


def _pool(context: StorageContext) -> ZfsSettings:
    assert isinstance(context.pool, ZfsSettings)  # noqa: S101  # the declaration's spec
    return context.pool
