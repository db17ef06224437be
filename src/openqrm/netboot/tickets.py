"""Boot tickets: handed out while a boot of the controller's making is awaited, until one of them is redeemed."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING

from openqrm.domain.machine import BootTicket, fingerprint
from openqrm.netboot import cpio

if TYPE_CHECKING:
    from openqrm.domain.resource import Resource
    from openqrm.plugin_api.records import Writer

LIFETIME = timedelta(minutes=15)
"""From the firmware's question to the registration; as long as the state table gives a boot."""
KEPT = 8
"""How many unredeemed tickets of one boot are remembered. Firmware asks a few times; more is someone else."""


def issue(writer: Writer, resource: Resource, *, random: str | None = None) -> str:
    """A new ticket for the boot that follows the resource's present one; only its hash is stored."""
    ticket = random or secrets.token_urlsafe(32)
    older = writer.find(BootTicket, order="-id", resource_id=resource.id)
    for number, row in enumerate(older):
        surplus = number >= KEPT - 1 and row.redeemed_by is None
        if surplus or row.expires_at < writer.now - LIFETIME:
            writer.delete(BootTicket, row.id)
    writer.insert(
        BootTicket(
            resource_id=resource.id,
            after_boot=resource.boot_id or "",
            ticket_hash=fingerprint(ticket),
            expires_at=writer.now + LIFETIME,
        )
    )
    return ticket


def archive(ticket: str) -> bytes:
    """The initrd that carries the ticket, ready to be appended to another one."""
    return cpio.archive({"etc/openqrm/ticket": cpio.Entry.file(ticket.encode() + b"\n", 0o600)})
