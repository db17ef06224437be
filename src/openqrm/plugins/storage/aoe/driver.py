"""Planner of the AoE export: every grant is one vblade process on the storage host that answers to one MAC address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.errors import ConflictError, MissingDependencyError
from openqrm.plugin_api.drivers import SanDisk, StorageContext
from openqrm.plugin_api.script_export import ExportFacts, ScriptExport
from openqrm.plugin_api.scripts import script
from openqrm.plugins.storage.aoe.plugin import AoeSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import Client

SHELVES, SLOTS = 65535, 255
"""Both addresses have one more value, which means all of them."""


def shelf_slot(volume: Volume) -> tuple[int, int]:
    """The AoE address of a volume: no other of the installation's first 16.7 million volumes has it.

    Beyond that two may; the host refuses the second one of its own, and on different hosts each answers to its own
    machine only.
    """
    return volume.id // SLOTS % SHELVES, volume.id % SLOTS


class AoeExport(ScriptExport):
    """Hands a block device or an image file to exactly one MAC address."""

    package = __package__
    scripts = ("shell:say", "shell:durable", "serve", "shell:exporters", "export")

    def about_host(self, context: StorageContext) -> tuple[str, ...]:
        """The network interface to the machines."""
        return _export(context).interface, context.address

    def about_grant(self, context: StorageContext, volume: Volume, client: Client) -> tuple[str, ...]:
        """What is installed to run it, its AoE address, and vblade's option for synchronous writes."""
        del client
        shelf, slot = shelf_slot(volume)
        exporter = script(self.package, "serve", "shell:exporter")
        return exporter, str(shelf), str(slot), "-s" if _export(context).synchronous else "-"

    def check(self, context: StorageContext, found: ExportFacts) -> None:
        """MissingDependencyError, ConflictError."""
        name, wanted = context.storage.name, _export(context).interface
        if "vblade" not in found.has:
            raise MissingDependencyError(
                f"the host of storage {name} has no vblade", remedy="apt-get install vblade on it"
            )
        if "interface" not in found.has:
            what = f"no interface {wanted}" if wanted != "auto" else f"no interface with the address {context.address}"
            raise ConflictError(
                f"the host of storage {name} has {what}",
                field="interface",
                remedy="name the interface of the host's network to the machines in the storage's settings",
            )

    def root_device(self, context: StorageContext, volume: Volume, location: str) -> str:
        """Shelf and slot, as the machine's driver names them."""
        del context, location
        shelf, slot = shelf_slot(volume)
        return f"e{shelf}.{slot}"

    def attach(self, context: StorageContext, volume: Volume, location: str, client: Client) -> Mapping[str, str]:
        """What `root-mount` needs, and the image's line in /etc/fstab."""
        del client
        device = self.root_device(context, volume, location)
        return {"ROOT_AOE": device, "FSTAB": f"/dev/etherd/{device} / auto rw 0 0"}

    def san(self, context: StorageContext, volume: Volume, location: str, client: Client) -> SanDisk:
        """As iPXE attaches it."""
        del client
        return SanDisk(f"aoe:{self.root_device(context, volume, location)}")


def _export(context: StorageContext) -> AoeSettings:
    assert isinstance(context.export, AoeSettings)  # noqa: S101  # the declaration's spec
    return context.export
