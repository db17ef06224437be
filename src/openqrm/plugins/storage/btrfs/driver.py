"""Planner of the btrfs pool: facts in, steps out. What happens on the host is in scripts/pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.errors import ConflictError, OpenqrmError, UnsupportedError
from openqrm.plugin_api.drivers import Cap
from openqrm.plugin_api.script_pool import ResizingScriptPool

if TYPE_CHECKING:
    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import StorageContext
    from openqrm.plugin_api.facts import Facts
    from openqrm.plugin_api.steps import Command, Irreversible, Steps


class BtrfsPool(ResizingScriptPool):
    """Volumes as subvolumes; clones and snapshots are writable snapshots, which share all blocks."""

    package = "openqrm.plugins.storage.btrfs"
    scripts = ("shell:say", "shell:state", "shell:fstab", "shell:unpack", "pool")

    def clone(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """A writable snapshot: the same time for any size, and no room until something is changed."""
        self.there(context, facts)
        return (self.step(context, volume, "clone", self.location(context, source)),)

    def snapshot(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """The same as a clone: it takes room only for what is changed."""
        return self.clone(context, source, volume, facts)

    def resize(self, context: StorageContext, volume: Volume, size_mb: int, facts: Facts) -> Steps:
        """Another limit. InvalidError for a smaller one, UnsupportedError without quotas, NoCapacityError."""
        if Cap.RESIZE in self.there(context, facts).lacks:
            raise UnsupportedError(
                f"storage {context.storage.name} keeps no sizes: quotas are off on its btrfs",
                remedy=f"btrfs quota enable {self.place(context)}",
            )
        return super().resize(context, volume, size_mb, facts)

    def back(self, context: StorageContext, volume: Volume, now_mb: int) -> Command | Irreversible:
        """The limit that it had."""
        return self.command(context, volume, "resize", str(now_mb))

    def absent(self, context: StorageContext) -> OpenqrmError:
        """What is raised when the directory is not there, or is not on a btrfs."""
        directory = self.place(context)
        return ConflictError(
            f"storage {context.storage.name}: {directory} is no directory on a btrfs of its host, or btrfs(8) is "
            "not installed there",
            field="directory",
            remedy=f"mount a btrfs at {directory}, and apt-get install btrfs-progs; nfs-storage keeps volumes on "
            "any file system",
        )
