"""Planners of the ZFS pools: facts in, steps out. What happens on the host is in scripts/pool."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from openqrm.domain.errors import ConflictError, InvalidError, NoCapacityError, UnsupportedError
from openqrm.plugin_api.drivers import Cap, VolumeEntry
from openqrm.plugin_api.script_pool import ScriptFacts, ScriptPool
from openqrm.plugin_api.steps import Irreversible
from openqrm.plugins.storage.zfs.plugin import ZfsSettings, ZfsTreeSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import StorageContext
    from openqrm.plugin_api.facts import Fact, Facts
    from openqrm.plugin_api.steps import Command, Steps


class ZfsPool(ScriptPool):
    """Volumes as zvols, handed out as block devices."""

    package = "openqrm.plugins.storage.zfs"
    kind = "block"

    def entries(self, context: StorageContext, facts: Facts) -> Sequence[VolumeEntry]:
        """The datasets in the storage's; a file system's size is its limit, 0 without one."""
        found = self._there(context, facts).volumes
        return [VolumeEntry(name, size, self._path(context, name)) for name, size in found.items()]

    def create(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """A zvol, of the default size without one; it takes what is written to it. NoCapacityError."""
        settings = context.pool
        assert isinstance(settings, ZfsSettings)  # noqa: S101  # the declaration's spec
        size = volume.size_mb or settings.default_size_mb
        return super().create(context, volume.model_copy(update={"size_mb": size}), facts)

    def clone(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """A snapshot and a clone of it: the same time for any size, and no room until something is changed."""
        self._there(context, facts)
        return (self.step(context, volume, "clone", self.location(context, source)),)

    def snapshot(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """The same as a clone: it takes room only for what is changed."""
        return self.clone(context, source, volume, facts)

    def resize(self, context: StorageContext, volume: Volume, size_mb: int, facts: Facts) -> Steps:
        """Another limit, or a larger zvol with its file system. InvalidError, NoCapacityError."""
        found = self._there(context, facts)
        now = found.volumes.get(volume.name, 0)
        if size_mb < now:
            raise InvalidError(f"volume {volume.name} has {now} MB and cannot shrink to {size_mb} MB", field="size_mb")
        if size_mb - now > found.free_mb:
            raise NoCapacityError(
                f"volume {volume.name} asks for {size_mb - now} MB more; storage {context.storage.name} has "
                f"{found.free_mb} MB free",
                field="size_mb",
            )
        undo = Irreversible(reason="a file system is not shrunk; the room it got does no harm")
        back = self.command(context, volume, "resize", str(now))
        return (self.step(context, volume, "resize", str(size_mb), undo=back if self.kind == "tree" else undo),)

    def location(self, context: StorageContext, volume: Volume) -> str:
        """The volume's device or directory on the host."""
        return self._path(context, volume.name)

    def command(self, context: StorageContext, volume: Volume, verb: str, *more: str) -> Command:
        """The script's call for a verb."""
        return super().command(context, volume, verb, self.kind, self.location(context, volume), *more)

    def _path(self, context: StorageContext, name: str) -> str:
        return f"/dev/zvol/{self._place(context)}/{name}"

    def _fact(self, context: StorageContext) -> Fact[ScriptFacts | None]:
        fact = super()._fact(context)
        return replace(fact, argv=(*fact.argv, self.kind))

    def _there(self, context: StorageContext, facts: Facts) -> ScriptFacts:
        found, name = facts.get(self._fact(context)), context.storage.name
        if found is None:
            dataset = self._place(context)
            raise ConflictError(
                f"storage {name}: there is no dataset {dataset} on its host, or no ZFS",
                field="dataset",
                remedy=f"zpool import {dataset.split('/', maxsplit=1)[0]}; or make it: zfs create -p {dataset}",
            )
        if Cap.LIST in found.lacks:
            raise UnsupportedError(
                f"the host of storage {name} has no ZFS in its kernel, so it has no zvols",
                remedy="apt-get install zfs-dkms zfsutils-linux on it (Debian contrib), or use zfs-nfs",
            )
        return found


class ZfsTreePool(ZfsPool):
    """Volumes as file systems, handed out as trees."""

    kind = "tree"

    def create(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """An empty file system, limited to the volume's size if it has one. NoCapacityError."""
        return ScriptPool.create(self, context, volume, facts)

    def _path(self, context: StorageContext, name: str) -> str:
        settings = context.pool
        assert isinstance(settings, ZfsTreeSettings)  # noqa: S101  # the declaration's spec
        return f"{settings.directory or '/' + settings.dataset}/{name}"
