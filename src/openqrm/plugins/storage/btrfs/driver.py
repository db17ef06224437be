"""Planner of the btrfs pool: facts in, steps out.

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
from openqrm.plugins.storage.btrfs.facts import PoolFacts, pool_fact, script
from openqrm.plugins.storage.btrfs.plugin import BtrfsSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.facts import Fact, Facts
    from openqrm.plugin_api.steps import Steps

SECONDS = 600
"""For a snapshot or the removal of a large subvolume; they take milliseconds unless the host is very busy."""
FILL_SECONDS = 7200


class BtrfsPool:
    """Volumes as subvolumes; clones and snapshots are writable snapshots, which share all blocks."""

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        """Free space, subvolumes with their limits, leftovers."""
        return (pool_fact(context, _pool(context)),)

    def confirms(self, capability: Cap, context: StorageContext, facts: Facts) -> bool:
        """RESIZE depends on quotas being on: a subvolume without limit has no size."""
        found = facts.get(pool_fact(context, _pool(context)))
        usable = found is not None and found.file_system == "btrfs" and found.tools
        return usable and (capability is not Cap.RESIZE or (found is not None and found.quota))

    def entries(self, context: StorageContext, facts: Facts) -> Sequence[VolumeEntry]:
        """The subvolumes in the directory; the size is the limit, 0 without one."""
        directory = _pool(context).directory
        found = self._there(context, facts).volumes
        return [VolumeEntry(name, limit, f"{directory}/{name}") for name, limit in found.items()]

    def leftovers(self, context: StorageContext, facts: Facts) -> Sequence[str]:
        """Half-filled subvolumes, what was being removed, notes about volumes that are gone."""
        return self._there(context, facts).leftovers

    def create(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """An empty subvolume, limited to the volume's size where quotas are on. NoCapacityError."""
        self._room(context, volume, volume.size_mb, facts)
        return (self._make(context, volume, "create", f"Make {self.location(context, volume)}"),)

    def clone(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """A writable snapshot: the same time for any size."""
        self._there(context, facts)
        where = self.location(context, source)
        return (self._make(context, volume, "clone", f"Copy {where} to {self.location(context, volume)}", where),)

    def snapshot(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """The same as a clone: it takes room only for what is changed."""
        return self.clone(context, source, volume, facts)

    def fill(self, context: StorageContext, volume: Volume, archive: str, facts: Facts) -> Steps:
        """Unpacked beside the volume first, in its place when whole."""
        self._there(context, facts)
        return (self._make(context, volume, "fill", f"Unpack into {self.location(context, volume)}", archive),)

    def resize(self, context: StorageContext, volume: Volume, size_mb: int, facts: Facts) -> Steps:
        """Another limit. InvalidError for a smaller one, UnsupportedError without quotas, NoCapacityError."""
        found = self._there(context, facts)
        if not found.quota:
            raise UnsupportedError(
                f"storage {context.storage.name} keeps no sizes: quotas are off on its btrfs",
                remedy=f"btrfs quota enable {_pool(context).directory}",
            )
        now = found.volumes.get(volume.name, 0)
        if size_mb < now:
            raise InvalidError(f"volume {volume.name} has {now} MB and cannot shrink to {size_mb} MB", field="size_mb")
        self._room(context, volume, size_mb - now, facts)
        title = f"Let {self.location(context, volume)} grow to {size_mb} MB"
        do, undo = (self._command(context, volume, "resize", str(size)) for size in (size_mb, now))
        return (self._run(context, volume, "resize", title, do, undo),)

    def remove(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """Renamed away at once, then deleted with the subvolumes in it."""
        self._there(context, facts)
        title = f"Remove {self.location(context, volume)}"
        do, undo = self._command(context, volume, "remove", "remove"), Irreversible(reason="the data is deleted")
        return (self._run(context, volume, "remove", title, do, undo),)

    def location(self, context: StorageContext, volume: Volume) -> str:
        """The subvolume's directory on the host."""
        return f"{_pool(context).directory}/{volume.name}"

    def _make(self, context: StorageContext, volume: Volume, verb: str, title: str, *more: str) -> Run:
        do = self._command(context, volume, verb, str(volume.size_mb), *more)
        return self._run(context, volume, verb, title, do, self._command(context, volume, "remove", "undo"))

    def _command(self, context: StorageContext, volume: Volume, verb: str, *more: str) -> Command:
        words = (_pool(context).directory, volume.name, str(volume.id), *more)
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

    def _there(self, context: StorageContext, facts: Facts) -> PoolFacts:
        directory, name = _pool(context).directory, context.storage.name
        found = facts.get(pool_fact(context, _pool(context)))
        if found is None:
            raise ConflictError(
                f"storage {name}: there is no directory {directory} on its host",
                field="directory",
                remedy="mount a btrfs there, or make the directory on one",
            )
        if found.file_system != "btrfs":
            raise ConflictError(
                f"storage {name}: {directory} is on {found.file_system}, not on a btrfs",
                field="directory",
                remedy=f"mkfs.btrfs a free device and mount it at {directory}; nfs-storage keeps volumes on any file "
                "system",
            )
        if not found.tools:
            raise MissingDependencyError(
                f"the host of storage {name} has no btrfs(8)", remedy="apt-get install btrfs-progs on it"
            )
        return found

    def _room(self, context: StorageContext, volume: Volume, size_mb: int, facts: Facts) -> None:
        free = self._there(context, facts).free_mb
        if size_mb > free:
            raise NoCapacityError(
                f"volume {volume.name} asks for {size_mb} MB; storage {context.storage.name} has {free} MB free",
                field="size_mb",
            )


def _pool(context: StorageContext) -> BtrfsSettings:
    assert isinstance(context.pool, BtrfsSettings)  # noqa: S101  # the declaration's spec
    return context.pool
