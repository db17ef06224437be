"""Tickets redeemed and tokens issued: who a machine is, decided from what it shows."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from openqrm.domain.machine import BootTicket, MachineToken, Stage, TokenPurpose, fingerprint

if TYPE_CHECKING:
    from openqrm.domain.resource import Resource
    from openqrm.plugin_api.records import Reader, Writer


@dataclass(frozen=True, slots=True)
class Session:
    """Who speaks: a machine within one boot, from its initramfs or from inside an image."""

    token_id: int
    resource_id: int
    boot_id: str
    stage: Stage
    generation: int


class TicketVerdict(StrEnum):
    """What a shown ticket is worth."""

    NONE = "none"
    VALID = "valid"
    STALE = "stale"
    REDEEMED_BEFORE = "redeemed-before"


def session_of(reader: Reader, token: str) -> Session | None:
    """The session a token speaks for; None for one that is not valid (any more)."""
    row = reader.one(MachineToken, token_hash=fingerprint(token)) if token else None
    if row is None or row.purpose is not TokenPurpose.SESSION:
        return None
    return Session(row.id, row.resource_id, row.boot_id, row.stage, row.generation)


def admits(reader: Reader, resource_id: int, token: str, *, stage: Stage, boot_id: str, generation: int) -> bool:
    """Whether a token lets this boot of this machine register (again) at this stage."""
    row = reader.one(MachineToken, token_hash=fingerprint(token)) if token else None
    if row is None or row.resource_id != resource_id:
        return False
    return (row.stage, row.boot_id) == (stage, boot_id) and (stage is Stage.INITRAMFS or row.generation == generation)


def issue(writer: Writer, resource_id: int, purpose: TokenPurpose, stage: Stage, boot_id: str, generation: int) -> str:
    """A new token of this purpose; the machine's earlier one of the same purpose is void. Only the hash is stored."""
    token = secrets.token_urlsafe(32)
    values = {"stage": stage, "boot_id": boot_id, "generation": generation, "token_hash": fingerprint(token)}
    row = writer.one(MachineToken, resource_id=resource_id, purpose=purpose)
    if row is None:
        writer.insert(MachineToken(resource_id=resource_id, purpose=purpose, **values))
    else:
        writer.update(row, **values)
    return token


def revoke(writer: Writer, resource_id: int, *purposes: TokenPurpose) -> None:
    """Void a machine's tokens; all of them when no purpose is named."""
    for row in writer.find(MachineToken, resource_id=resource_id):
        if not purposes or row.purpose in purposes:
            writer.delete(MachineToken, row.id)


def forget(writer: Writer, resource_id: int) -> None:
    """Everything that proves this machine's identity goes: it is called when the resource is removed."""
    revoke(writer, resource_id)
    for row in writer.find(BootTicket, resource_id=resource_id):
        writer.delete(BootTicket, row.id)


def redeem(writer: Writer, resource: Resource, ticket: str, boot_id: str) -> TicketVerdict:
    """Judge a ticket and, if it is good, mark it as redeemed by this boot.

    The same boot may show its ticket again, since an answer can get lost. A ticket of a boot that another one has
    redeemed, be it the same ticket or a twin handed out for that boot, is the sign of an impostor.
    """
    if not ticket:
        return TicketVerdict.NONE
    row = writer.one(BootTicket, ticket_hash=fingerprint(ticket))
    if row is None or row.resource_id != resource.id:
        return TicketVerdict.STALE
    twins = writer.find(BootTicket, resource_id=resource.id, after_boot=row.after_boot, redeemed_by__null=False)
    if any(twin.redeemed_by != boot_id for twin in twins):
        return TicketVerdict.REDEEMED_BEFORE
    if row.redeemed_by == boot_id:
        return TicketVerdict.VALID
    if row.expires_at < writer.now:
        return TicketVerdict.STALE
    writer.update(row, redeemed_by=boot_id)
    return TicketVerdict.VALID
