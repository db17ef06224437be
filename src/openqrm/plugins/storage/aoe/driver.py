"""Planner of the AoE export: facts in, steps out.

Every grant is one vblade process on the storage host that answers to one MAC address. Short shell scripts, run behind
the host gate, write down what is granted, start the process and see that it runs, or end it and see that it is gone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import ConflictError, InvalidError, MissingDependencyError
from openqrm.plugin_api.drivers import SanDisk, StorageContext
from openqrm.plugin_api.steps import Command, Gate, Irreversible, Run
from openqrm.plugins.storage.aoe.facts import export_fact, script
from openqrm.plugins.storage.aoe.plugin import AoeSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import Client, Grant
    from openqrm.plugin_api.facts import Fact, Facts
    from openqrm.plugin_api.steps import Steps

GRANT_SECONDS = 90
SHELVES, SLOTS = 65535, 255
"""Both addresses have one more value, which means all of them."""


def shelf_slot(volume: Volume) -> tuple[int, int]:
    """The AoE address of a volume: no other of the installation's first 16.7 million volumes has it.

    Beyond that two may; the host refuses the second one of its own, and on different hosts each answers to its own
    machine only.
    """
    return volume.id // SLOTS % SHELVES, volume.id % SLOTS


class AoeExport:
    """Hands a block device or an image file to exactly one MAC address."""

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        """The server software, the interface, and the grants there are."""
        return (export_fact(context, _export(context)),)

    def grants(self, context: StorageContext, facts: Facts) -> Sequence[Grant]:
        """What is written down, and whatever other vblade runs on a file or device of the pool."""
        return facts.get(export_fact(context, _export(context))).grants

    def authorize(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        """One MAC address, read and write. Takes it from whoever had it. Undo revokes.

        InvalidError for a client without MAC address, MissingDependencyError, ConflictError.
        """
        self._ready(context, facts)
        settings = _export(context)
        shelf, slot = shelf_slot(volume)
        mode = "-s" if settings.synchronous else "-"
        grant = (str(shelf), str(slot), settings.interface, context.address, _mac(client), str(generation), mode)
        granted = Run(
            name="authorize",
            title=f"Export {location} as e{shelf}.{slot} to {client.name} ({client.mac})",
            host=context.host,
            do=_shell("export-grant", (script("exporter"), f"volume-{volume.id}", location, *grant)),
            undo=_shell("export-revoke", (f"volume-{volume.id}", location)),
            gate=_gate(volume, generation),
            timeout=GRANT_SECONDS,
        )
        return (granted,)

    def revoke(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        """No process of the host exports it any more."""
        del facts  # the host is asked when it is done, whatever software it had before
        revoked = Run(
            name="revoke",
            title=f"Take {location} back from {client.name}",
            host=context.host,
            do=_shell("export-revoke", (f"volume-{volume.id}", location)),
            undo=Irreversible(reason="access that was taken back is granted anew, under a new lease"),
            gate=_gate(volume, generation),
            timeout=GRANT_SECONDS,
        )
        return (revoked,)

    def withdraw(self, context: StorageContext, grant: Grant, facts: Facts) -> Steps:
        """A grant that was written down is revoked; a process that somebody started is ended."""
        del facts
        if grant.volume:
            command = _shell("export-revoke", (grant.volume, grant.location))
        else:
            command = _shell("export-withdraw", (grant.location, grant.client))
        withdrawn = Run(
            name="withdraw",
            title=f"End the export of {grant.location} to {grant.client}",
            host=context.host,
            do=command,
            undo=Irreversible(reason="no lease knows of this access"),
            timeout=GRANT_SECONDS,
        )
        return (withdrawn,)

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

    def _ready(self, context: StorageContext, facts: Facts) -> None:
        found = facts.get(export_fact(context, _export(context)))
        name, wanted = context.storage.name, _export(context).interface
        if not found.vblade:
            raise MissingDependencyError(
                f"the host of storage {name} has no vblade", remedy="apt-get install vblade on it"
            )
        if not found.interface:
            what = f"no interface {wanted}" if wanted != "auto" else f"no interface with the address {context.address}"
            raise ConflictError(
                f"the host of storage {name} has {what}",
                field="interface",
                remedy="name the interface of the host's network to the machines in the storage's settings",
            )


def _export(context: StorageContext) -> AoeSettings:
    assert isinstance(context.export, AoeSettings)  # noqa: S101  # the declaration's spec
    return context.export


def _gate(volume: Volume, generation: int) -> Gate:
    return Gate(volume=f"volume-{volume.id}", generation=generation)


def _shell(name: str, arguments: tuple[str, ...]) -> Command:
    return Command(argv=("sh", "-s", "--", *arguments), input=script("exports", name))


def _mac(client: Client) -> str:
    """One MAC address of one machine, and nothing else, as vblade's option takes a list."""
    mac = client.mac.lower()
    if not re.fullmatch(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}", mac):
        raise InvalidError(
            f"{client.name} has no MAC address to export to", remedy=f"give resource {client.name} its MAC address"
        )
    return mac
