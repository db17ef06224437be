"""Planner of the pool of image files: facts in, steps out.

Each verb is one short shell script, given as input, which is idempotent and leaves either nothing or the whole. It runs
behind the host gate, so that it is not half overtaken by another controller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import ConflictError, InvalidError, NoCapacityError, UnsupportedError
from openqrm.plugin_api.drivers import Cap, StorageContext, VolumeEntry
from openqrm.plugin_api.steps import Command, Gate, Irreversible, Run
from openqrm.plugins.storage.file.facts import PoolFacts, pool_fact, script
from openqrm.plugins.storage.file.plugin import FileSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.facts import Fact, Facts
    from openqrm.plugin_api.steps import Steps

COPY_SECONDS = 7200
"""For what reads or writes a whole image."""


class FilePool:
    """Volumes as raw image files; copies share blocks where the file system can."""

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        """Free space, volumes, and whether copies share blocks."""
        return (pool_fact(context, _pool(context)),)

    def confirms(self, capability: Cap, context: StorageContext, facts: Facts) -> bool:
        """CLONE_COW and SNAPSHOT depend on the file system below the pool; the rest is always there."""
        found = facts.get(pool_fact(context, _pool(context)))
        return found is not None and (capability not in (Cap.CLONE_COW, Cap.SNAPSHOT) or found.reflink)

    def entries(self, context: StorageContext, facts: Facts) -> Sequence[VolumeEntry]:
        """The image files in the directory."""
        directory = _pool(context).directory
        found = self._there(context, facts).volumes
        return [VolumeEntry(file.name, file.size_mb, f"{directory}/{file.name}.img") for file in found]

    def leftovers(self, context: StorageContext, facts: Facts) -> Sequence[str]:
        """Half-made copies, what was being removed, notes about volumes that are gone."""
        return self._there(context, facts).leftovers

    def create(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """A sparse file of the volume's size, or of the default size. NoCapacityError when it does not fit."""
        size = volume.size_mb or _pool(context).default_size_mb
        self._room(context, volume, size, facts)
        return (self._make(context, volume, "create", (str(size),)),)

    def clone(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """A copy under another name first, which takes the volume's name when it is whole. NoCapacityError."""
        found = self._there(context, facts)
        file = found.volume(source.name)
        if file is not None:  # what both share is not counted: its blocks are there
            self._room(context, volume, file.size_mb - (file.used_mb if found.reflink else 0), facts)
        return (self._make(context, volume, "clone", (self.location(context, source), "auto")),)

    def snapshot(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """A copy that shares all blocks, or none at all. UnsupportedError."""
        if not self._there(context, facts).reflink:
            raise UnsupportedError(
                f"files in {_pool(context).directory} cannot share blocks, so there are no snapshots",
                remedy="clone the volume, or keep the pool on btrfs or on XFS with reflink",
            )
        return (self._make(context, volume, "clone", (self.location(context, source), "always")),)

    def fill(self, context: StorageContext, volume: Volume, archive: str, facts: Facts) -> Steps:
        """An ext4 file system with the archive's content, made beside the volume, in its place when whole."""
        self._there(context, facts)
        return (self._make(context, volume, "fill", (archive,)),)

    def resize(self, context: StorageContext, volume: Volume, size_mb: int, facts: Facts) -> Steps:
        """The file grows, then the file system in it (ext, XFS, btrfs). InvalidError, NoCapacityError."""
        file = self._there(context, facts).volume(volume.name)
        now = file.size_mb if file is not None else volume.size_mb
        if size_mb < now:
            raise InvalidError(
                f"volume {volume.name} has {now} MB and cannot shrink to {size_mb} MB",
                field="size_mb",
                remedy="make a smaller volume and move the image there",
            )
        self._room(context, volume, size_mb - now, facts)
        arguments = (_pool(context).directory, volume.name, str(size_mb))
        grown = self._run(
            context,
            volume,
            "resize",
            f"Grow {self.location(context, volume)} to {size_mb} MB",
            _shell("volume-resize", arguments),
            Irreversible(reason="a file system is not shrunk; the room it got does no harm"),
        )
        return (grown,)

    def remove(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """Renamed away at once, then deleted."""
        self._there(context, facts)
        title = f"Remove {self.location(context, volume)}"
        removal, final = self._removal(context, volume, "remove"), Irreversible(reason="the data is deleted")
        return (self._run(context, volume, "remove", title, removal, final),)

    def location(self, context: StorageContext, volume: Volume) -> str:
        """The volume's file on the host."""
        return f"{_pool(context).directory}/{volume.name}.img"

    def _make(self, context: StorageContext, volume: Volume, verb: str, more: tuple[str, ...]) -> Run:
        done = {"create": "Make", "clone": "Copy to", "fill": "Unpack into"}[verb]
        title = f"{done} {self.location(context, volume)}"
        arguments = (_pool(context).directory, volume.name, str(volume.id), *more)
        command = _shell(f"volume-{verb}", arguments)
        return self._run(context, volume, verb, title, command, self._removal(context, volume, "undo"))

    def _removal(self, context: StorageContext, volume: Volume, kind: str) -> Command:
        return _shell("volume-remove", (_pool(context).directory, volume.name, str(volume.id), kind))

    def _run(
        self,
        context: StorageContext,
        volume: Volume,
        verb: str,
        title: str,
        command: Command,
        undo: Command | Irreversible,
    ) -> Run:
        return Run(
            name=verb,
            title=title,
            host=context.host,
            do=command,
            undo=undo,
            gate=Gate(volume=f"volume-{volume.id}", generation=volume.generation),
            timeout=COPY_SECONDS,
        )

    def _there(self, context: StorageContext, facts: Facts) -> PoolFacts:
        settings = _pool(context)
        found = facts.get(pool_fact(context, settings))
        if found is None:
            raise ConflictError(
                f"storage {context.storage.name}: there is no directory {settings.directory} on its host",
                field="directory",
                remedy=f"mount its file system there, or make it: mkdir -p {settings.directory}",
            )
        return found

    def _room(self, context: StorageContext, volume: Volume, size_mb: int, facts: Facts) -> None:
        found = self._there(context, facts)
        left = found.free_mb - found.promised_mb
        if size_mb > left and not _pool(context).overcommit:
            raise NoCapacityError(
                f"volume {volume.name} asks for {size_mb} MB; storage {context.storage.name} has {found.free_mb} MB "
                f"free, of which its volumes may still take {found.promised_mb} MB",
                field="size_mb",
                remedy="ask for less, make room, or allow it by the storage's setting overcommit",
            )


def _pool(context: StorageContext) -> FileSettings:
    assert isinstance(context.pool, FileSettings)  # noqa: S101  # the declaration's spec
    return context.pool


def _shell(name: str, arguments: tuple[str, ...]) -> Command:
    return Command(argv=("sh", "-s", "--", *arguments), input=script("pool", name))
