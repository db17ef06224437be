"""Planner of the NBD export: every grant is one nbdkit process on the storage host; one machine knows its key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.errors import MissingDependencyError
from openqrm.plugin_api.script_export import ExportFacts, ScriptExport, address_of
from openqrm.plugin_api.scripts import script
from openqrm.plugins.storage.nbd.plugin import FEWEST_PORTS, NbdSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import Client, StorageContext

_STRIDE = 257
"""Apart from each other: volumes made one after the other do not compete for the same ports."""


def ports(volume: Volume, settings: NbdSettings) -> tuple[int, ...]:
    """Where a volume may be served: the host takes the first that is free, a machine tries all with its key."""
    count = settings.last_port - settings.first_port + 1
    found = dict.fromkeys((volume.id + number * _STRIDE) % count for number in range(FEWEST_PORTS))
    return tuple(settings.first_port + each for each in list(found)[: FEWEST_PORTS // 2])


class NbdExport(ScriptExport):
    """Hands a block device or an image file to exactly one machine, which knows the key of the grant."""

    package = __package__
    scripts = ("shell:say", "shell:durable", "serve", "shell:exporters", "export")
    secret = "psk"  # noqa: S105  # its name

    def about_host(self, context: StorageContext) -> tuple[str, ...]:
        """Where it listens."""
        return (context.address,)

    def about_grant(self, context: StorageContext, volume: Volume, client: Client) -> tuple[str, ...]:
        """What is installed to run it, and the ports it may have."""
        del client
        return script(self.package, "serve", "shell:exporter"), _ports(context, volume)

    def known_as(self, client: Client) -> str:
        """Its address: whom the grant is for; it is the key that admits it. InvalidError."""
        return address_of(client)

    def check(self, context: StorageContext, found: ExportFacts) -> None:
        """MissingDependencyError."""
        if "tls" not in found.has:
            what = "an nbdkit without TLS" if "nbdkit" in found.has else "no nbdkit"
            raise MissingDependencyError(
                f"the host of storage {context.storage.name} has {what}", remedy="apt-get install nbdkit on it"
            )

    def root_device(self, context: StorageContext, volume: Volume, location: str) -> str:
        """The name of the NBD export."""
        del context, location
        return f"volume-{volume.id}"

    def attach(self, context: StorageContext, volume: Volume, location: str, client: Client) -> Mapping[str, str]:
        """What `root-mount` needs beside the key. It knows the device's name, and so the line in /etc/fstab."""
        del client
        return {
            "ROOT_SERVER": context.address,
            "ROOT_PORTS": _ports(context, volume),
            "ROOT_EXPORT": self.root_device(context, volume, location),
        }


def _ports(context: StorageContext, volume: Volume) -> str:
    assert isinstance(context.export, NbdSettings)  # noqa: S101  # the declaration's spec
    return " ".join(map(str, ports(volume, context.export)))
