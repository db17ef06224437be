"""Planner of the pool of image files: facts in, steps out. What happens on the host is in scripts/pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.errors import UnsupportedError
from openqrm.plugin_api.drivers import Cap
from openqrm.plugin_api.script_pool import ResizingScriptPool
from openqrm.plugins.storage.file.plugin import FileSettings

if TYPE_CHECKING:
    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import StorageContext
    from openqrm.plugin_api.facts import Facts
    from openqrm.plugin_api.steps import Command, Steps


class FilePool(ResizingScriptPool):
    """Volumes as raw image files; copies share blocks where the file system can."""

    package = "openqrm.plugins.storage.file"
    scripts = ("shell:say", "shell:state", "shell:unpack", "shell:copy", "shell:reflink", "shell:grow", "pool")
    when_full = "ask for less, make room, or allow it by the storage's setting overcommit"

    def command(self, context: StorageContext, volume: Volume, verb: str, *more: str) -> Command:
        """The script's call for a verb. Without overcommit the script itself looks at the room once more, alone."""
        if verb == "create" and not _pool(context).overcommit:
            more = ("within",)
        return super().command(context, volume, verb, *more)

    def clone(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """A copy, which keeps holes. NoCapacityError."""
        found = self.there(context, facts)
        shared = 0 if Cap.CLONE_COW in found.lacks else found.used.get(source.name, 0)
        if source.name in found.volumes:  # what both share is not counted: its blocks are there
            self.room(context, volume, facts, found.volumes[source.name] - shared)
        return (self.step(context, volume, "clone", self.location(context, source)),)

    def snapshot(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """A copy that shares all blocks, or none at all. UnsupportedError."""
        if Cap.SNAPSHOT in self.there(context, facts).lacks:
            raise UnsupportedError(
                f"files in {_pool(context).directory} cannot share blocks, so there are no snapshots",
                remedy="clone the volume, or keep the pool on btrfs or on XFS with reflink",
            )
        return (self.step(context, volume, "snapshot", self.location(context, source)),)

    def place_of(self, context: StorageContext, name: str) -> str:
        """A file, whose name tells what it is."""
        return f"{_pool(context).directory}/{name}.img"

    def room(
        self, context: StorageContext, volume: Volume, facts: Facts, size_mb: int | None = None, now_mb: int = 0
    ) -> None:
        """Nothing is refused where the storage may promise more than it has."""
        self.there(context, facts)
        if not _pool(context).overcommit:
            super().room(context, volume, facts, size_mb, now_mb)


def _pool(context: StorageContext) -> FileSettings:
    assert isinstance(context.pool, FileSettings)  # noqa: S101  # the declaration's spec
    return context.pool
