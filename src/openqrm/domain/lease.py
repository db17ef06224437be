"""Leases: the right to run an image read-write on one resource, with a generation that only grows."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from openqrm.domain.model import Attr, Entity, Id, Record


class LeaseState(StrEnum):
    """A lease is held until its holder was proved gone."""

    HELD = "held"
    RELEASED = "released"


class Lease(Record):
    """Held by one appliance for one image on one resource.

    `held_image`, `held_resource` and `held_appliance` equal the ids while held and are null once released, so that
    plain unique constraints, which ignore nulls, forbid a second holder and a second lease on every database.
    """

    entity: ClassVar[Entity] = Entity(
        name="lease",
        plural="leases",
        title="Lease",
        summary="The right to run an image on one resource",
        label="id",
        unique=(("image_id", "generation"),),
    )

    image_id: Annotated[Id, Attr("Image", ref="image", filter=True, listed=True)]
    resource_id: Annotated[Id, Attr("Resource", ref="resource", filter=True, listed=True)]
    appliance_id: Annotated[Id, Attr("Appliance", ref="appliance", filter=True, listed=True)]
    operation_id: Annotated[Id, Attr("Operation", ref="operation")]
    generation: Annotated[int, Field(ge=1), Attr("Generation", listed=True)]
    state: Annotated[LeaseState, Attr("State", filter=True, listed=True)] = LeaseState.HELD
    held_image: Annotated[Id | None, Attr("Held image", unique=True)] = None
    held_resource: Annotated[Id | None, Attr("Held resource", unique=True)] = None
    held_appliance: Annotated[Id | None, Attr("Held by", unique=True)] = None


class Loan(Record):
    """The right of one machine to use a volume for an operation, beside what appliances hold leases for.

    A loan to read is the source of a transfer: any number of machines may have one, and none while an appliance may
    write the volume. One to write (`generation` above 0, the volume's next) is as exclusive as a lease: `written`
    equals the volume's id while it is held.
    """

    entity: ClassVar[Entity] = Entity(
        name="loan",
        plural="loans",
        title="Loan",
        summary="The right of a machine to read or write a volume for an operation",
        label="id",
        indexes=(("volume_id", "state"), ("resource_id", "state")),
    )

    volume_id: Annotated[Id, Attr("Volume", ref="volume", filter=True, listed=True)]
    resource_id: Annotated[Id, Attr("Resource", ref="resource", filter=True, listed=True)]
    operation_id: Annotated[Id, Attr("Operation", ref="operation", filter=True, listed=True)]
    appliance_id: Annotated[
        Id | None, Attr("Appliance", ref="appliance", help="whose root is filled from the volume", filter=True)
    ] = None
    generation: Annotated[int, Field(ge=0), Attr("Generation", help="0: to read only", listed=True)] = 0
    state: Annotated[LeaseState, Attr("State", filter=True, listed=True)] = LeaseState.HELD
    written: Annotated[Id | None, Attr("Written volume", unique=True)] = None
