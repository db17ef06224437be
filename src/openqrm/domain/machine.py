"""What proves to the controller that a machine is the one it says: boot tickets and per-machine tokens.

Both are random and stored as hashes only. A ticket admits the boot that follows a known one; a token speaks for one
machine, boot, stage and generation.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from openqrm.domain.appliance import ApplianceDesired, AppliancePhase
from openqrm.domain.model import Attr, Entity, Id, Record

if TYPE_CHECKING:
    from openqrm.domain.appliance import Appliance
    from openqrm.domain.lease import Lease


class Stage(StrEnum):
    """Where on a machine the software that speaks to us runs."""

    INITRAMFS = "initramfs"
    IMAGE = "image"


class TokenPurpose(StrEnum):
    """An admission lets the agent inside an image register; a session speaks for a machine that registered."""

    ADMISSION = "admission"
    SESSION = "session"


def fingerprint(secret: str) -> str:
    """What is stored of a ticket or token: SHA-256, hexadecimal. They are random, so they need no salt."""
    return hashlib.sha256(secret.encode()).hexdigest()


def meant_to_run(lease: Lease | None, appliance: Appliance | None) -> bool:
    """Whether the machine that holds this lease is to run the appliance if it boots now."""
    if lease is None or appliance is None:
        return False
    starting = appliance.phase in (AppliancePhase.STARTING, AppliancePhase.RUNNING)
    return starting and appliance.desired is ApplianceDesired.RUNNING


@dataclass(frozen=True, slots=True)
class Handover:
    """What a machine boots without a kernel of ours: a disk on a SAN, or, without `uri`, its own first disk.

    `password` is in clear: it goes to the boot loader, and nowhere else.
    """

    uri: str = ""
    initiator: str = ""
    user: str = ""
    password: str = field(default="", repr=False)


class BootTicket(Record):
    """One ticket handed out for the boot that follows `after_boot`.

    Several may be handed out for one boot, since firmware asks again; one of them may be redeemed.
    """

    entity: ClassVar[Entity] = Entity(
        name="boot-ticket",
        plural="boot-tickets",
        title="Boot ticket",
        summary="Proof that a machine's boot was ordered by the controller",
        label="id",
        indexes=(("resource_id", "after_boot"),),
        stored_only=True,
    )

    resource_id: Annotated[Id, Attr("Resource", ref="resource", filter=True)]
    after_boot: Annotated[str, Field(max_length=64), Attr("After boot", help="the boot it follows")] = ""
    ticket_hash: Annotated[str, Field(max_length=128), Attr("Hash", unique=True, secret=True)]
    expires_at: Annotated[datetime, Attr("Expires")]
    redeemed_by: Annotated[str | None, Field(max_length=64), Attr("Redeemed by boot")] = None


class MachineToken(Record):
    """A key of one machine's node API, valid for one boot, stage and generation."""

    entity: ClassVar[Entity] = Entity(
        name="machine-token",
        plural="machine-tokens",
        title="Machine token",
        summary="A machine's key to the node API",
        label="id",
        unique=(("resource_id", "purpose"),),
        stored_only=True,
    )

    resource_id: Annotated[Id, Attr("Resource", ref="resource", filter=True)]
    purpose: Annotated[TokenPurpose, Attr("Purpose")]
    stage: Annotated[Stage, Attr("Stage")]
    boot_id: Annotated[str, Field(max_length=64), Attr("Boot ID")]
    generation: Annotated[int, Field(ge=0), Attr("Generation")] = 0
    token_hash: Annotated[str, Field(max_length=128), Attr("Hash", unique=True, secret=True)]
