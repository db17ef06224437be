"""Boot tickets: handed out while a boot of the controller's making is awaited, until one of them is redeemed."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING

from openqrm.domain.errors import ConflictError
from openqrm.domain.event import Severity
from openqrm.domain.machine import BootTicket, fingerprint
from openqrm.netboot import cpio

if TYPE_CHECKING:
    from openqrm.domain.resource import Resource
    from openqrm.plugin_api.records import Reader, Writer

LIFETIME = timedelta(minutes=15)
"""From the firmware's question to the registration; as long as the state table gives a boot."""
KEPT = 8
"""How many unredeemed tickets of one boot may be valid at once. Firmware asks a few times; more is someone else."""


def check(reader: Reader, resource: Resource) -> None:
    """ConflictError when so many tickets are out for the next boot that no more are given to just anybody.

    A ticket that is out stays good until it expires: otherwise whoever asks often could void the machine's own.
    """
    if _valid(reader, resource) >= KEPT:
        raise ConflictError(
            f"{KEPT} boot tickets of {resource.name} are out already",
            remedy=f"they expire {LIFETIME.seconds // 60} minutes after they were asked for",
        )


def _valid(reader: Reader, resource: Resource) -> int:
    after = resource.boot_id or ""
    given = reader.find(BootTicket, resource_id=resource.id, after_boot=after, expires_at__gt=reader.now)
    return sum(row.redeemed_by is None for row in given)


def issue(writer: Writer, resource: Resource, *, random: str | None = None) -> str:
    """A new ticket for the boot that follows the resource's present one; only its hash is stored."""
    ticket = random or secrets.token_urlsafe(32)
    for row in writer.find(BootTicket, resource_id=resource.id, expires_at__lt=writer.now - LIFETIME):
        writer.delete(BootTicket, row.id)
    if _valid(writer, resource) == KEPT - 1:
        text = f"{KEPT} boot tickets of {resource.name} were asked for and not used: something else may ask for them"
        writer.event(text, severity=Severity.WARNING, source="boot-listener", about=resource)
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
