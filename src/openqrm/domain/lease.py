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
