"""Planners of roots in memory: no host keeps anything, so there is nothing to do but to see that they fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import InvalidError, NoCapacityError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import Client, Grant, StorageContext, VolumeEntry
    from openqrm.plugin_api.facts import Fact, Facts
    from openqrm.plugin_api.steps import Steps

SYSTEM_MB = 256
"""Memory of a machine that its root leaves to the system that runs from it."""
LEAST_MB = 16


class MemoryPool:
    """Volumes are records: a size, and a name."""

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        """Nothing is asked."""
        del context
        return ()

    def entries(self, context: StorageContext, facts: Facts) -> Sequence[VolumeEntry]:
        """None: no host keeps them."""
        del context, facts
        return ()

    def create(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """No step. InvalidError for a volume without a size: a root in memory must be limited."""
        del context, facts
        if volume.size_mb < LEAST_MB:
            raise InvalidError(
                f"a root in memory has a size of at least {LEAST_MB} MB",
                field="size_mb",
                remedy="--size-mb MB: what the image holds, and what the appliance may write",
            )
        return ()

    def remove(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """No step."""
        del context, volume, facts
        return ()

    def clone(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """UnsupportedError: there is nothing to copy while no machine runs it."""
        del context, volume, facts
        raise UnsupportedError(f"{source.name} is in memory only while it runs", remedy="create another volume")

    def fill(self, context: StorageContext, volume: Volume, archive: str, facts: Facts) -> Steps:
        """UnsupportedError: it is filled at boot."""
        del context, archive, facts
        raise UnsupportedError(
            f"{volume.name} is filled from another image at each boot",
            remedy="create an empty volume, and an image with --install-from-id",
        )

    def location(self, context: StorageContext, volume: Volume) -> str:
        """Its name, which is nowhere on a host."""
        del context
        return volume.name

    def leftovers(self, context: StorageContext, facts: Facts) -> Sequence[str]:
        """None."""
        del context, facts
        return ()


class TmpfsExport:
    """A machine is granted a part of its own memory."""

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        """Nothing is asked."""
        del context
        return ()

    def grants(self, context: StorageContext, facts: Facts) -> Sequence[Grant]:
        """None: no server gives access."""
        del context, facts
        return ()

    def authorize(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        """No step. NoCapacityError for a machine with too little memory."""
        del context, location, generation, facts
        if 0 < client.memory_mb < volume.size_mb + SYSTEM_MB:
            raise NoCapacityError(
                f"a root of {volume.size_mb} MB in memory and {SYSTEM_MB} MB for the system do not fit into the "
                f"{client.memory_mb} MB of {client.name}",
                field="resource_id",
                remedy="choose a machine with more memory, or make the volume smaller",
            )
        return ()

    def revoke(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        """No step, and no proof: a machine runs from its memory until its power is off."""
        del context, volume, location, client, generation, facts
        return ()

    def withdraw(self, context: StorageContext, grant: Grant, facts: Facts) -> Steps:
        """No step: there are no grants."""
        del context, grant, facts
        return ()

    def root_device(self, context: StorageContext, volume: Volume, location: str) -> str:
        """What it is."""
        del context, location
        return f"tmpfs:{volume.name}"

    def attach(self, context: StorageContext, volume: Volume, location: str, client: Client) -> Mapping[str, str]:
        """Its size."""
        del context, location, client
        return {
            "ROOT_SIZE_MB": str(volume.size_mb),
            "FSTAB": f"tmpfs / tmpfs rw,mode=755,nr_inodes=0,size={volume.size_mb}m 0 0",
        }
