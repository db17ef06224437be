"""Planners of the LVM pools: facts in, steps out.

Each verb is one command on the storage host: a short shell script, given as input, which is idempotent and leaves
either nothing or the whole. It runs behind the host gate, so that it is not half overtaken by another controller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import ConflictError, InvalidError, MissingDependencyError, NoCapacityError
from openqrm.plugin_api.drivers import Cap, StorageContext, VolumeEntry
from openqrm.plugin_api.steps import Command, Gate, Irreversible, Run
from openqrm.plugins.storage.lvm.facts import LvmFacts, lvm_fact, script
from openqrm.plugins.storage.lvm.plugin import LvmSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.facts import Fact, Facts
    from openqrm.plugin_api.steps import Steps

COPY_SECONDS = 7200
"""For what reads or writes a whole volume."""
NEARLY_FULL = 95.0
"""Per cent of a thin pool from which on nothing new is put into it: what runs already may need the rest."""
RESERVED = ("snapshot", "pvmove")
"""LVM takes no names that begin so."""


class LvmPool:
    """Volumes as logical volumes, handed out as block devices."""

    kind = "block"

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        """Volume groups, thin pools, logical volumes."""
        return (lvm_fact(context, _pool(context)),)

    def confirms(self, capability: Cap, context: StorageContext, facts: Facts) -> bool:
        """CLONE_COW depends on thin volumes; everything on the volume group being there."""
        found, settings = facts.get(lvm_fact(context, _pool(context))), _pool(context)
        usable = settings.volume_group in found.groups and (found.thin or not settings.thin)
        return usable and (capability is not Cap.CLONE_COW or settings.thin)

    def entries(self, context: StorageContext, facts: Facts) -> Sequence[VolumeEntry]:
        """The logical volumes that are ours; of a classic snapshot the size is the room for what differs."""
        settings, found = _pool(context), self._there(context, facts)
        pools = {"", settings.thin_pool} if settings.thin else {""}
        return [
            VolumeEntry(each.name, each.size_mb, self._path(settings, each.name))
            for each in found.volumes
            if each.kind == self.kind and "_" not in each.name and each.pool in pools
        ]

    def leftovers(self, context: StorageContext, facts: Facts) -> Sequence[str]:
        """Half-made copies, and what they are read from."""
        found = self._there(context, facts).volumes
        names = [each.name for each in found if each.kind == self.kind and each.name.endswith(("_new", "_from"))]
        return [f"{_pool(context).volume_group}/{name}" for name in names]

    def create(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """An empty logical volume of the volume's size, or of the default size. NoCapacityError."""
        size = volume.size_mb or _pool(context).default_size_mb
        self._room(context, volume, size, facts)
        title = f"Make {self.location(context, volume)} of {size} MB"
        return (self._make(context, volume, "create", title, str(size), *self._thin(context)),)

    def clone(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """A thin snapshot, in an instant; without a thin pool, or of a source outside of it, a copy of every block."""
        settings, there = _pool(context), self._there(context, facts).volume(source.name)
        shares = settings.thin and (there is None or there.pool == settings.thin_pool)
        self._room(context, volume, 0 if shares or there is None else there.size_mb, facts)
        self._whole(context, source, facts)
        return self._copy(context, source, volume, "share" if shares else "copy")

    def snapshot(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """A thin snapshot, or a classic one with `size_mb` of room for what differs from its source."""
        settings, there = _pool(context), self._there(context, facts).volume(source.name)
        if settings.thin and (there is None or there.pool == settings.thin_pool):
            return self.clone(context, source, volume, facts)
        self._room(context, volume, volume.size_mb or (there.size_mb if there else 0), facts, classic=True)
        self._whole(context, source, facts)
        return self._copy(context, source, volume, str(volume.size_mb))

    def fill(self, context: StorageContext, volume: Volume, archive: str, facts: Facts) -> Steps:
        """A new ext4 on the volume with the archive's content."""
        self._there(context, facts)
        return (self._make(context, volume, "fill", f"Unpack into {self.location(context, volume)}", archive),)

    def resize(self, context: StorageContext, volume: Volume, size_mb: int, facts: Facts) -> Steps:
        """The logical volume grows, then its file system (ext, XFS, btrfs). InvalidError, NoCapacityError."""
        there = self._there(context, facts).volume(volume.name)
        now = there.size_mb if there else volume.size_mb
        if size_mb < now:
            raise InvalidError(
                f"volume {volume.name} has {now} MB and cannot shrink to {size_mb} MB",
                field="size_mb",
                remedy="make a smaller volume and move the image there",
            )
        thin = there is not None and bool(there.pool)
        self._room(context, volume, size_mb if thin else size_mb - now, facts, classic=not thin)
        title = f"Grow {self.location(context, volume)} to {size_mb} MB"
        final = Irreversible(reason="a file system is not shrunk; the room it got does no harm")
        return (self._run(context, volume, "resize", title, (str(size_mb),), final),)

    def remove(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """Destroyed at once. Refused on the host for what is not ours, and for what classic snapshots need."""
        self._there(context, facts)
        title = f"Remove {self.location(context, volume)}"
        final = Irreversible(reason="the data is deleted")
        return (self._run(context, volume, "remove", title, ("remove",), final),)

    def location(self, context: StorageContext, volume: Volume) -> str:
        """The volume's device on the host."""
        return self._path(_pool(context), volume.name)

    def _path(self, settings: LvmSettings, name: str) -> str:
        return f"/dev/{settings.volume_group}/{name}"

    def _thin(self, context: StorageContext) -> tuple[str, str]:
        settings = _pool(context)
        return (settings.thin_pool if settings.thin else "", str(settings.thin_pool_mb))

    def _copy(self, context: StorageContext, source: Volume, volume: Volume, how: str) -> Steps:
        title = f"Copy {self.location(context, source)} to {self.location(context, volume)}"
        return (self._make(context, volume, "clone", title, how, source.name, *self._thin(context)),)

    def _make(self, context: StorageContext, volume: Volume, verb: str, title: str, *more: str) -> Run:
        if volume.name.startswith(RESERVED):
            raise InvalidError(
                f"LVM takes no name that begins with {' or '.join(RESERVED)}: {volume.name}", field="name"
            )
        return self._run(context, volume, verb, title, more, self._command(context, volume, "remove", ("undo",)))

    def _command(self, context: StorageContext, volume: Volume, verb: str, more: tuple[str, ...]) -> Command:
        words = (_pool(context).volume_group, volume.name, str(volume.id), self.kind, *more)
        return Command(argv=("sh", "-s", "--", *words), input=script("pool", f"volume-{verb}"))

    def _run(
        self,
        context: StorageContext,
        volume: Volume,
        verb: str,
        title: str,
        more: tuple[str, ...],
        undo: Command | Irreversible,
    ) -> Run:
        return Run(
            name=verb,
            title=title,
            host=context.host,
            do=self._command(context, volume, verb, more),
            undo=undo,
            gate=Gate(volume=f"volume-{volume.id}", generation=volume.generation),
            timeout=COPY_SECONDS,
        )

    def _there(self, context: StorageContext, facts: Facts) -> LvmFacts:
        settings, name = _pool(context), context.storage.name
        found = facts.get(lvm_fact(context, settings))
        if not found.lvm:
            raise MissingDependencyError(
                f"the host of storage {name} has no LVM",
                remedy="apt-get install lvm2 thin-provisioning-tools on it",
            )
        if settings.thin and not found.thin:
            raise MissingDependencyError(
                f"the host of storage {name} cannot check thin pools",
                remedy="apt-get install thin-provisioning-tools on it",
            )
        if settings.volume_group not in found.groups:
            groups = ", ".join(sorted(found.groups)) or "none"
            raise ConflictError(
                f"storage {name}: there is no volume group {settings.volume_group} on its host, which has: {groups}",
                field="volume_group",
                remedy=f"make it of a free device: vgcreate {settings.volume_group} /dev/sdb1",
            )
        return found

    def _room(
        self, context: StorageContext, volume: Volume, size_mb: int, facts: Facts, *, classic: bool = False
    ) -> None:
        """A volume must fit into what it is made in; thin volumes together may be larger."""
        settings, found = _pool(context), self._there(context, facts)
        group = found.groups[settings.volume_group]
        pool = found.volume(settings.thin_pool) if settings.thin and not classic else None
        where, limit = f"volume group {settings.volume_group}", group.free_mb
        if pool is not None:
            where, limit = f"thin pool {settings.volume_group}/{pool.name}", pool.size_mb
            if pool.full >= NEARLY_FULL:
                raise NoCapacityError(
                    f"{where} of storage {context.storage.name} is {pool.full:g} % full",
                    remedy=f"let it grow: lvextend -L +10G {settings.volume_group}/{pool.name}; or remove volumes",
                )
        if size_mb > limit:
            raise NoCapacityError(
                f"volume {volume.name} asks for {size_mb} MB; {where} of storage {context.storage.name} has {limit} MB",
                field="size_mb",
            )

    def _whole(self, context: StorageContext, source: Volume, facts: Facts) -> None:
        there = self._there(context, facts).volume(source.name)
        if there is not None and there.origin and not there.pool and there.full >= 100:  # per cent
            raise ConflictError(
                f"{self.location(context, source)} is a snapshot whose room was full: its content is lost",
                remedy=f"remove volume {source.name}, and give the next snapshot more room, or use a thin pool",
            )


class LvmTreePool(LvmPool):
    """Volumes as mounted ext4 file systems, handed out as trees."""

    kind = "tree"

    def _path(self, settings: LvmSettings, name: str) -> str:
        return f"/{settings.volume_group}/{name}"


def _pool(context: StorageContext) -> LvmSettings:
    assert isinstance(context.pool, LvmSettings)  # noqa: S101  # the declaration's spec
    return context.pool
