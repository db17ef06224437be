"""Appliances: the service as an operator sees it, and the requirements a resource must meet."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from openqrm.domain.model import Attr, Entity, Id, MegaBytes, Name, Record, Text
from openqrm.domain.resource import Health
from openqrm.domain.states import Owner, Row, StateTable


class Requirements(BaseModel):
    """What a resource must have to run an appliance. Zero and empty mean: any."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Annotated[str, Field(max_length=63), Attr("Resource type")] = ""
    cpus: Annotated[int, Field(ge=0, le=65536), Attr("CPUs, at least")] = 0
    memory_mb: Annotated[MegaBytes, Attr("Memory, at least", unit="MB")] = 0
    nics: Annotated[int, Field(ge=0, le=1024), Attr("NICs, at least")] = 0
    group: Annotated[str, Field(max_length=63), Attr("Resource group")] = ""


class AppliancePhase(StrEnum):
    """Where an appliance is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    REMOVING = "removing"


class ApplianceDesired(StrEnum):
    """What the operator wants."""

    STOPPED = "stopped"
    RUNNING = "running"


APPLIANCE_PHASES = StateTable(
    name="appliance phase",
    initial=AppliancePhase.STOPPED,
    states=tuple(AppliancePhase),
    rows=(
        Row(AppliancePhase.STOPPED, "start", AppliancePhase.STARTING, "an operator or a policy started it"),
        Row(
            AppliancePhase.STARTING,
            "started",
            AppliancePhase.RUNNING,
            "the agent spoke from inside the image",
        ),
        Row(AppliancePhase.RUNNING, "start-failing", AppliancePhase.STARTING, "a hook after the start failed; undone"),
        Row(AppliancePhase.STARTING, "start-undone", AppliancePhase.STOPPED, "the start failed and was undone"),
        Row(AppliancePhase.RUNNING, "stop", AppliancePhase.STOPPING, "an operator or a policy stopped it"),
        Row(
            AppliancePhase.STOPPING,
            "stopped",
            AppliancePhase.STOPPED,
            "the machine was proved gone and access revoked",
        ),
        Row(AppliancePhase.STOPPED, "remove", AppliancePhase.REMOVING, "the plug-ins are told, then it is forgotten"),
        Row("*", "abandoned", AppliancePhase.STOPPED, "a human took over what an operation could not finish"),
    ),
    owners=(
        Owner(AppliancePhase.STARTING, "appliance.start", "each step has a limit; then undone, or operation.abandon"),
        Owner(AppliancePhase.STOPPING, "appliance.stop", "each step has a limit; then a human, or operation.abandon"),
        Owner(AppliancePhase.REMOVING, "appliance.remove", "each step has a limit; then a human, or operation.abandon"),
    ),
)


class Appliance(Record):
    """The service: kernel + image + resource or requirements; started and stopped as one."""

    entity: ClassVar[Entity] = Entity(
        name="appliance",
        plural="appliances",
        title="Appliance",
        summary="Kernel + image + resource or requirements, started and stopped as one",
        states={"phase": APPLIANCE_PHASES},
    )

    name: Annotated[Name, Attr("Name", unique=True, filter=True, search=True, listed=True, immutable=True)]
    image_id: Annotated[Id, Attr("Image", ref="image", filter=True, listed=True)]
    kernel_id: Annotated[Id | None, Attr("Kernel", ref="kernel", help="empty: the default kernel", filter=True)] = None
    resource_id: Annotated[
        Id | None, Attr("Resource", ref="resource", help="empty: chosen by the requirements", filter=True)
    ] = None
    requirements: Annotated[Requirements, Attr("Requirements", help="what a chosen resource must have")] = (
        Requirements()
    )
    storage_nic: Annotated[str, Field(max_length=17), Attr("Storage NIC", help="MAC of a second NIC to bring up")] = ""
    comment: Annotated[Text, Attr("Comment")] = ""
    desired: Annotated[ApplianceDesired, Attr("Desired", filter=True, derived=True)] = ApplianceDesired.STOPPED
    phase: Annotated[AppliancePhase, Attr("Phase", filter=True, listed=True, derived=True)] = AppliancePhase.STOPPED
    health: Annotated[Health, Attr("Health", filter=True, listed=True, derived=True)] = Health.UNKNOWN
    running_on: Annotated[Id | None, Attr("Running on", ref="resource", filter=True, listed=True, derived=True)] = None
    address: Annotated[str | None, Field(max_length=45), Attr("Address", listed=True, derived=True)] = None
    started_at: Annotated[datetime | None, Attr("Started", derived=True)] = None
    placement: Annotated[Text, Attr("Placement", help="why this resource was chosen", derived=True)] = ""
