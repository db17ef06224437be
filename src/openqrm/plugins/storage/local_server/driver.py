"""Planners of partitions in machines. The machine may be off: what is in the partition is looked at when it boots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import ConflictError, InvalidError, UnsupportedError
from openqrm.plugins.storage.local_server.plugin import PartitionSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import Client, Grant, StorageContext, VolumeEntry
    from openqrm.plugin_api.facts import Fact, Facts
    from openqrm.plugin_api.steps import Steps


class PartitionPool:
    """The one volume of a storage is its partition, as it is."""

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        """Nothing is asked: the machine is off, or in another system."""
        del context
        return ()

    def entries(self, context: StorageContext, facts: Facts) -> Sequence[VolumeEntry]:
        """None that anybody could see from outside."""
        del context, facts
        return ()

    def create(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """No step: the partition is there, and what is in it stays. InvalidError unless it bears the partition's name.

        A name is used once on a storage, so no second volume can be recorded for the partition.
        """
        del facts
        name = _settings(context).volume
        if volume.name != name:
            raise InvalidError(
                f"the volume in {_settings(context).device} is named {name}",
                field="name",
                remedy=f"--name {name}",
            )
        return ()

    def remove(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """No step: what is in the partition stays."""
        del context, volume, facts
        return ()

    def clone(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """UnsupportedError: a partition is not copied by its machine while it is off."""
        del context, volume, facts
        raise UnsupportedError(
            f"{source.name} is a partition of a machine", remedy="copy the image to an NFS storage: --transfer-to-id"
        )

    def fill(self, context: StorageContext, volume: Volume, archive: str, facts: Facts) -> Steps:
        """UnsupportedError: the machine fills it itself."""
        del context, archive, facts
        raise UnsupportedError(
            f"{volume.name} is a partition of a machine",
            remedy="record it as an empty volume, and let its image be filled from another: --install-from-id",
        )

    def location(self, context: StorageContext, volume: Volume) -> str:
        """The partition."""
        del volume
        return _settings(context).device

    def leftovers(self, context: StorageContext, facts: Facts) -> Sequence[str]:
        """None."""
        del context, facts
        return ()


class LocalServerExport:
    """A machine is granted what it has."""

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
        """No step. ConflictError for any other machine."""
        del generation, facts
        if client.resource_id != context.host:
            raise ConflictError(
                f"{volume.name} is {location} of another machine than {client.name}", field="resource_id"
            )
        return ()

    def revoke(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        """No step: nobody else can reach it, and its own machine cannot be kept from it."""
        del context, volume, location, client, generation, facts
        return ()

    def withdraw(self, context: StorageContext, grant: Grant, facts: Facts) -> Steps:
        """No step: there are no grants."""
        del context, grant, facts
        return ()

    def root_device(self, context: StorageContext, volume: Volume, location: str) -> str:
        """The partition."""
        del context, volume
        return location

    def attach(self, context: StorageContext, volume: Volume, location: str, client: Client) -> Mapping[str, str]:
        """The partition; its file system is what is found there."""
        del context, volume, client
        return {"ROOT_DEVICE": location, "FSTAB": f"{location} / auto defaults 0 1"}


def _settings(context: StorageContext) -> PartitionSettings:
    assert isinstance(context.pool, PartitionSettings)  # noqa: S101  # the settings were validated by our own spec
    return context.pool
