"""Planners of the ZFS pools: facts in, steps out. What happens on the host is in scripts/pool."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from openqrm.domain.errors import ConflictError, OpenqrmError, UnsupportedError
from openqrm.plugin_api.drivers import Cap
from openqrm.plugin_api.script_pool import ResizingScriptPool, ScriptFacts
from openqrm.plugins.storage.zfs.plugin import ZfsTreeSettings

if TYPE_CHECKING:
    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import StorageContext
    from openqrm.plugin_api.facts import Fact, Facts
    from openqrm.plugin_api.steps import Command, Irreversible, Steps


class ZfsPool(ResizingScriptPool):
    """Volumes as zvols, handed out as block devices."""

    package = "openqrm.plugins.storage.zfs"
    scripts = ("shell:say", "shell:unpack", "shell:grow", "pool")
    kind = "block"

    def clone(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """A snapshot and a clone of it: the same time for any size, and no room until something is changed."""
        self.there(context, facts)
        return (self.step(context, volume, "clone", self.location(context, source)),)

    def snapshot(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """The same as a clone: it takes room only for what is changed."""
        return self.clone(context, source, volume, facts)

    def command(self, context: StorageContext, volume: Volume, verb: str, *more: str) -> Command:
        """The script's call for a verb."""
        return super().command(context, volume, verb, self.kind, self.location(context, volume), *more)

    def place_of(self, context: StorageContext, name: str) -> str:
        """The device of the zvol."""
        return f"/dev/zvol/{self.place(context)}/{name}"

    def fact(self, context: StorageContext) -> Fact[ScriptFacts | None]:
        """The question, with the kind of volume that it is about."""
        fact = super().fact(context)
        return replace(fact, argv=(*fact.argv, self.kind))

    def absent(self, context: StorageContext) -> OpenqrmError:
        """What is raised when the dataset is not there."""
        dataset = self.place(context)
        return ConflictError(
            f"storage {context.storage.name}: there is no dataset {dataset} on its host, or no ZFS",
            field="dataset",
            remedy=f"zpool import {dataset.split('/', maxsplit=1)[0]}; or make it: zfs create -p {dataset}",
        )

    def there(self, context: StorageContext, facts: Facts) -> ScriptFacts:
        """What the script said. UnsupportedError when volumes of this kind cannot be on the host."""
        found = super().there(context, facts)
        if Cap.LIST in found.lacks:
            raise UnsupportedError(
                f"the host of storage {context.storage.name} has no ZFS in its kernel, so it has no zvols",
                remedy="apt-get install zfs-dkms zfsutils-linux on it (Debian contrib), or use zfs-nfs",
            )
        return found


class ZfsTreePool(ZfsPool):
    """Volumes as file systems, handed out as trees."""

    kind = "tree"

    def back(self, context: StorageContext, volume: Volume, now_mb: int) -> Command | Irreversible:
        """The limit that it had."""
        return self.command(context, volume, "resize", str(now_mb))

    def place_of(self, context: StorageContext, name: str) -> str:
        """Where ZFS mounts it."""
        settings = context.pool
        assert isinstance(settings, ZfsTreeSettings)  # noqa: S101  # the declaration's spec
        return f"{settings.directory or '/' + settings.dataset}/{name}"
