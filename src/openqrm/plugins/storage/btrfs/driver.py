"""Planner of the btrfs pool: facts in, steps out. What happens on the host is in scripts/pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.errors import ConflictError, InvalidError, NoCapacityError, UnsupportedError
from openqrm.plugin_api.drivers import Cap
from openqrm.plugin_api.script_pool import ScriptFacts, ScriptPool

if TYPE_CHECKING:
    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import StorageContext
    from openqrm.plugin_api.facts import Facts
    from openqrm.plugin_api.steps import Steps


class BtrfsPool(ScriptPool):
    """Volumes as subvolumes; clones and snapshots are writable snapshots, which share all blocks."""

    package = "openqrm.plugins.storage.btrfs"

    def clone(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """A writable snapshot: the same time for any size, and no room until something is changed."""
        self._there(context, facts)
        return (self.step(context, volume, "clone", self.location(context, source)),)

    def snapshot(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """The same as a clone: it takes room only for what is changed."""
        return self.clone(context, source, volume, facts)

    def resize(self, context: StorageContext, volume: Volume, size_mb: int, facts: Facts) -> Steps:
        """Another limit. InvalidError for a smaller one, UnsupportedError without quotas, NoCapacityError."""
        found = self._there(context, facts)
        if Cap.RESIZE in found.lacks:
            raise UnsupportedError(
                f"storage {context.storage.name} keeps no sizes: quotas are off on its btrfs",
                remedy=f"btrfs quota enable {self._place(context)}",
            )
        now = found.volumes.get(volume.name, 0)
        if size_mb < now:
            raise InvalidError(f"volume {volume.name} has {now} MB and cannot shrink to {size_mb} MB", field="size_mb")
        if size_mb - now > found.free_mb:
            raise NoCapacityError(
                f"volume {volume.name} asks for {size_mb - now} MB more; storage {context.storage.name} has "
                f"{found.free_mb} MB free",
                field="size_mb",
            )
        undo = self.command(context, volume, "resize", str(now))
        return (self.step(context, volume, "resize", str(size_mb), undo=undo),)

    def _there(self, context: StorageContext, facts: Facts) -> ScriptFacts:
        found = facts.get(self._fact(context))
        if found is None:
            directory = self._place(context)
            raise ConflictError(
                f"storage {context.storage.name}: {directory} is no directory on a btrfs of its host, or btrfs(8) is "
                "not installed there",
                field="directory",
                remedy=f"mount a btrfs at {directory}, and apt-get install btrfs-progs; dir-storage keeps volumes on "
                "any file system",
            )
        return found
