"""Resources: anything with CPU and memory, their state table and what the boot of one reports."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from openqrm.domain.model import Attr, Entity, Id, Mac, MegaBytes, Name, Record, Text
from openqrm.domain.states import Deadline, Row, StateTable

SERVER_ID = 0
"""The openQRM server itself."""


class Phase(StrEnum):
    """Where a resource is in its life."""

    NEW = "new"
    BOOTING = "booting"
    IDLE = "idle"
    DEPLOYING = "deploying"
    ACTIVE = "active"
    RETURNING = "returning"
    OFF = "off"
    UNKNOWN = "unknown"


class Power(StrEnum):
    """What the power interface last read back."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


class Health(StrEnum):
    """What the heartbeats say."""

    OK = "ok"
    LATE = "late"
    LOST = "lost"
    UNKNOWN = "unknown"


class Desired(StrEnum):
    """What an operator or an appliance wants of the resource."""

    IDLE = "idle"
    ASSIGNED = "assigned"
    OFF = "off"
    NONE = "none"


RESOURCE_PHASES = StateTable(
    name="resource phase",
    initial=Phase.NEW,
    states=tuple(Phase),
    rows=(
        Row(
            "*",
            "script-asked",
            Phase.BOOTING,
            "the firmware asked for its boot script, so the machine just started",
        ),
        Row(
            "*",
            "registered-initramfs",
            Phase.IDLE,
            "the initramfs registered: no image is mounted on this machine",
        ),
        Row(Phase.IDLE, "deploy", Phase.DEPLOYING, "an appliance holds the lease and access is granted"),
        Row(
            Phase.BOOTING,
            "deploy",
            Phase.DEPLOYING,
            "the machine restarted while its appliance is meant to run",
        ),
        Row(Phase.BOOTING, "registered-image", Phase.ACTIVE, "the agent spoke from inside the image"),
        Row(Phase.DEPLOYING, "registered-image", Phase.ACTIVE, "the agent spoke from inside the image"),
        Row(Phase.ACTIVE, "registered-image", Phase.ACTIVE, "the agent restarted within the same boot"),
        Row(Phase.BOOTING, "handed-over", Phase.ACTIVE, "its boot loader was told to boot a disk, for its appliance"),
        Row(Phase.DEPLOYING, "handed-over", Phase.ACTIVE, "its boot loader was told to boot a disk, for its appliance"),
        Row(Phase.ACTIVE, "handed-over", Phase.ACTIVE, "its boot loader asked again"),
        Row(
            Phase.RETURNING,
            "registered-image",
            Phase.RETURNING,
            "the image came up after it was called off; its agent gets the order to go back",
        ),
        Row(
            Phase.DEPLOYING,
            "deploy-failed",
            Phase.IDLE,
            "the machine reported failure and is in its initramfs",
        ),
        Row(
            Phase.ACTIVE,
            "return",
            Phase.RETURNING,
            "the appliance stops; the machine goes back to the initramfs",
        ),
        Row(Phase.DEPLOYING, "return", Phase.RETURNING, "the start is being undone"),
        Row(Phase.BOOTING, "return", Phase.RETURNING, "the appliance stops while the machine restarts"),
        Row(Phase.RETURNING, "return", Phase.RETURNING, "asked again after a controller restart"),
        Row("*", "powered-off", Phase.OFF, "it reported or was read back as off"),
        Row(
            Phase.BOOTING,
            "boot-late",
            Phase.NEW,
            "no registration in time: nothing is known about the machine",
        ),
        Row(
            Phase.DEPLOYING,
            "deploy-late",
            Phase.BOOTING,
            "no word from the image: the start is undone by a restart",
        ),
        Row(Phase.RETURNING, "return-late", Phase.BOOTING, "no new boot seen: its state must be found out"),
    ),
    deadlines=(
        Deadline(Phase.BOOTING, 900, "boot-late", "monitor", "firmware and PXE of a large server take minutes"),
        Deadline(Phase.DEPLOYING, 900, "deploy-late", "operation", "root mount, modules and the image's own start"),
        Deadline(Phase.RETURNING, 900, "return-late", "operation", "a clean shutdown and a boot"),
    ),
)


class Resource(Record):
    """Anything with CPU and memory: a machine, a virtual machine, a closed box, the server itself."""

    entity: ClassVar[Entity] = Entity(
        name="resource",
        plural="resources",
        title="Resource",
        summary="Anything with CPU and memory",
        states={"phase": RESOURCE_PHASES},
        indexes=(("phase", "health", "type"), ("group", "id"), ("memory_mb", "id"), ("cpus", "id")),
    )

    name: Annotated[Name, Attr("Name", unique=True, filter=True, search=True, listed=True)]
    type: Annotated[
        Name,
        Attr("Type", help="physical, server, closed, or a type a plug-in brings", filter=True, listed=True),
    ] = "physical"
    mac: Annotated[
        Mac | None,
        Attr("MAC address", help="of the boot NIC", unique=True, search=True, listed=True, immutable=True),
    ] = None
    address: Annotated[
        str | None,
        Field(max_length=45),
        Attr("Address", help="in the management network", search=True, listed=True),
    ] = None
    group: Annotated[str, Field(max_length=63), Attr("Group", filter=True)] = ""
    manual: Annotated[
        bool,
        Attr("Made by hand", help="never monitored, its state is always unknown", filter=True, immutable=True),
    ] = False
    desired: Annotated[Desired, Attr("Desired", derived=True)] = Desired.NONE
    phase: Annotated[Phase, Attr("Phase", filter=True, listed=True, derived=True)] = Phase.NEW
    phase_since: Annotated[datetime | None, Attr("In this phase since", derived=True)] = None
    power: Annotated[Power, Attr("Power", filter=True, derived=True)] = Power.UNKNOWN
    health: Annotated[Health, Attr("Health", filter=True, listed=True, derived=True)] = Health.UNKNOWN
    agentless: Annotated[
        bool, Attr("Without agent", help="runs a system that need not have our agent: it is not heard", derived=True)
    ] = False
    boot_id: Annotated[str | None, Field(max_length=64), Attr("Boot ID", derived=True)] = None
    cpus: Annotated[int, Field(ge=0, le=65536), Attr("CPUs", filter=True, listed=True, derived=True)] = 0
    memory_mb: Annotated[MegaBytes, Attr("Memory", unit="MB", filter=True, listed=True, derived=True)] = 0
    swap_mb: Annotated[MegaBytes, Attr("Swap", unit="MB", derived=True)] = 0
    nic_count: Annotated[int, Field(ge=0, le=1024), Attr("NICs", filter=True, derived=True)] = 0
    arch: Annotated[str, Field(max_length=32), Attr("Architecture", derived=True)] = ""
    firmware: Annotated[str, Field(max_length=16), Attr("Firmware", derived=True)] = ""
    cpu_model: Annotated[Text, Attr("CPU model", derived=True)] = ""
    kernel_running: Annotated[Text, Attr("Running kernel", derived=True)] = ""
    inventory: Annotated[dict[str, Any], Attr("Inventory", help="disks, NICs, DMI as last reported", derived=True)] = (
        Field(default_factory=dict)
    )
    ssh_host_keys: Annotated[tuple[str, ...], Attr("SSH host keys", help="pinned for this boot", derived=True)] = ()


class MachineOrder(Record):
    """An order to a machine, delivered over its stream until it reports done."""

    entity: ClassVar[Entity] = Entity(
        name="machine-order",
        plural="machine-orders",
        title="Machine order",
        summary="An order sent to a machine over its stream",
        label="verb",
        indexes=(("resource_id", "state"),),
    )

    resource_id: Annotated[Id, Attr("Resource", ref="resource", filter=True, listed=True)]
    operation_id: Annotated[Id | None, Attr("Operation", ref="operation", filter=True)] = None
    verb: Annotated[Name, Attr("Verb", listed=True, filter=True)]
    boot_id: Annotated[
        str, Field(max_length=64), Attr("Boot ID", help="the boot it is meant for; another boot ignores it")
    ] = ""
    details: Annotated[
        dict[str, Any], Attr("Details", help="what the order is about, by ids; the machine fetches the rest")
    ] = Field(default_factory=dict)
    state: Annotated[Name, Attr("State", help="open, acknowledged, done, failed, void", filter=True, listed=True)] = (
        "open"
    )
    progress: Annotated[int, Field(ge=0, le=100), Attr("Progress", unit="%", listed=True)] = 0
    text: Annotated[Text, Attr("Last words", listed=True)] = ""
