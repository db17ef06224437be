"""Planners of the LVM pools: facts in, steps out. What happens on the host is in scripts/pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.errors import ConflictError, InvalidError, MissingDependencyError, NoCapacityError
from openqrm.plugin_api.script_pool import ResizingScriptPool, ScriptFacts
from openqrm.plugins.storage.lvm.plugin import LvmSettings

if TYPE_CHECKING:
    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import StorageContext
    from openqrm.plugin_api.facts import Facts
    from openqrm.plugin_api.steps import Command, Steps

NEARLY_FULL = 95.0
"""Per cent of a thin pool from which on nothing new is put into it: what runs already may need the rest."""
RESERVED = ("snapshot", "pvmove")
"""LVM takes no names that begin so."""
_TOOLS = "apt-get install lvm2 thin-provisioning-tools on it"


class LvmPool(ResizingScriptPool):
    """Volumes as logical volumes, handed out as block devices, or as trees: mounted ext4 file systems."""

    package = "openqrm.plugins.storage.lvm"
    scripts = ("shell:say", "shell:fstab", "shell:grow", "shell:unpack", "pool")

    def clone(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """A thin snapshot, in an instant; without a thin pool, or of a source outside of it, a copy of every block."""
        found = self._whole(context, source, facts)
        self.room(context, volume, facts, found.volumes.get(source.name, 0) if _thick(context, found, source) else 0)
        return (self.step(context, volume, "clone", self.location(context, source)),)

    def snapshot(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """A thin snapshot, or a classic one with `size_mb` of room for what differs from its source."""
        found = self._whole(context, source, facts)
        if not _thick(context, found, source):
            return self.clone(context, source, volume, facts)
        super().room(context, volume, facts, volume.size_mb or found.volumes.get(source.name, 0))
        return (self.step(context, volume, "snapshot", self.location(context, source)),)

    def command(self, context: StorageContext, volume: Volume, verb: str, *more: str) -> Command:
        """The script's call for a verb. InvalidError for a name that LVM does not take."""
        if verb != "remove" and volume.name.startswith(RESERVED):
            names = " or ".join(RESERVED)
            raise InvalidError(f"LVM takes no name that begins with {names}: {volume.name}", field="name")
        return super().command(context, volume, verb, str(_pool(context).thin_pool_mb), *more)

    def place_of(self, context: StorageContext, name: str) -> str:
        settings = _pool(context)
        return f"{'/dev' if settings.kind == 'block' else ''}/{settings.volume_group}/{name}"

    def there(self, context: StorageContext, facts: Facts) -> ScriptFacts:
        settings, store = _pool(context), f"storage {context.storage.name}"
        found, group = super().there(context, facts), settings.volume_group
        if "lvm" not in found.has:
            raise MissingDependencyError(f"the host of {store} has no LVM", remedy=_TOOLS)
        if settings.thin and "thin" not in found.has:
            raise MissingDependencyError(f"the host of {store} cannot check thin pools", remedy=_TOOLS)
        if "group" not in found.has:
            raise ConflictError(
                f"{store}: there is no volume group {group} on its host, which has: {found.has['groups'] or 'none'}",
                field="volume_group",
                remedy=f"make it of a free device: vgcreate {group} /dev/sdb1",
            )
        return found

    def room(
        self, context: StorageContext, volume: Volume, facts: Facts, size_mb: int | None = None, now_mb: int = 0
    ) -> None:
        """A volume must fit into what it is made in; thin volumes together may be larger."""
        found, asked = self.there(context, facts), volume.size_mb if size_mb is None else size_mb
        if "pool" not in found.has or _thick(context, found, volume):
            super().room(context, volume, facts, asked, now_mb)
            return
        size, full = found.has["pool"].split()
        pool = f"{_pool(context).volume_group}/{_pool(context).thin_pool}"
        where = f"thin pool {pool} of storage {context.storage.name}"
        if float(full) >= NEARLY_FULL:
            raise NoCapacityError(
                f"{where} is {full} % full", remedy=f"let it grow: lvextend -L +10G {pool}; or remove volumes"
            )
        if asked > int(size):
            raise NoCapacityError(f"volume {volume.name} asks for {asked} MB; {where} has {size} MB", field="size_mb")

    def _whole(self, context: StorageContext, source: Volume, facts: Facts) -> ScriptFacts:
        found = self.there(context, facts)
        if source.name in found.has["lost"].split():
            raise ConflictError(
                f"{self.location(context, source)} is a snapshot whose room was full: its content is lost",
                remedy=f"remove volume {source.name}, and give the next snapshot more room, or use a thin pool",
            )
        return found


def _thick(context: StorageContext, found: ScriptFacts, volume: Volume) -> bool:
    return not _pool(context).thin or volume.name in found.has["thick"].split()


def _pool(context: StorageContext) -> LvmSettings:
    assert isinstance(context.pool, LvmSettings)  # noqa: S101  # the declaration's spec
    return context.pool
