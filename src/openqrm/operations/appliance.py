"""The appliance's life cycle: create, start, stop, change, remove. Declarations and pure planners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from openqrm.domain.appliance import Appliance, ApplianceDesired, AppliancePhase, Requirements
from openqrm.domain.errors import ConflictError, InvalidError, UnsupportedError
from openqrm.domain.kernel import Kernel
from openqrm.domain.lease import Lease
from openqrm.domain.model import Attr, Id, Mac, Name, Text
from openqrm.domain.resource import Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.plugin_api.drivers import Cap, Client, confirmed
from openqrm.plugin_api.operation import Arguments, Operation, Phase
from openqrm.plugin_api.steps import Change, Irreversible, Plan, Wait
from openqrm.plugin_api.values import Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.plugin_api.drivers import ExportDriver, StorageContext
    from openqrm.plugin_api.facts import Fact
    from openqrm.plugin_api.operation import Call, PlanContext
    from openqrm.plugin_api.records import Reader, Writer
    from openqrm.plugin_api.steps import Steps

_DEPLOY_SECONDS = 900
_RETURN_SECONDS = 900
"""Firmware, PXE and a large server's memory test take minutes; the state tables have the same limits."""


class CreateArguments(Arguments):
    """What an appliance is made of."""

    name: Annotated[Name, Attr("Name")]
    image_id: Annotated[Id, Attr("Image", ref="image")]
    kernel_id: Annotated[Id | None, Attr("Kernel", ref="kernel", help="empty: the default kernel")] = None
    resource_id: Annotated[Id | None, Attr("Resource", ref="resource", help="empty: chosen by the requirements")] = None
    requirements: Annotated[Requirements, Attr("Requirements")] = Requirements()
    storage_nic: Annotated[Mac | None, Attr("Storage NIC", help="MAC of a second NIC to bring up")] = None
    comment: Annotated[Text, Attr("Comment")] = ""


class UpdateArguments(Arguments):
    """What may change while the appliance is stopped. Fields left out stay as they are."""

    image_id: Annotated[Id | None, Attr("Image", ref="image")] = None
    kernel_id: Annotated[Id | None, Attr("Kernel", ref="kernel", help="-1: the default kernel")] = None
    resource_id: Annotated[Id | None, Attr("Resource", ref="resource", help="-1: any that fits")] = None
    requirements: Annotated[Requirements | None, Attr("Requirements")] = None
    storage_nic: Annotated[Mac | None, Attr("Storage NIC")] = None
    comment: Annotated[str | None, Field(max_length=1000), Attr("Comment")] = None


def create(writer: Writer, call: Call) -> Appliance:
    """Record an appliance; nothing is started."""
    given: CreateArguments = call.arguments
    _check_references(writer, given.image_id, given.kernel_id, given.resource_id)
    values = given.model_dump(exclude={"storage_nic", "requirements"})
    return writer.insert(Appliance(**values, requirements=given.requirements, storage_nic=given.storage_nic or ""))


def update(writer: Writer, call: Call) -> Appliance:
    """Change a stopped appliance."""
    given: UpdateArguments = call.arguments
    appliance: Appliance = call.target  # type: ignore[assignment]  # the declaration's target is Appliance
    _check_references(writer, given.image_id, given.kernel_id, given.resource_id)
    changes = {name: getattr(given, name) for name in given.model_fields_set}
    for name in ("kernel_id", "resource_id"):
        if changes.get(name) == -1:
            changes[name] = None
    for name in ("image_id", "requirements", "comment"):
        if name in changes and changes[name] is None:
            raise InvalidError(f"{name} cannot be empty", field=name, remedy="leave it out to keep it")
    if "storage_nic" in changes:
        changes["storage_nic"] = changes["storage_nic"] or ""
    return writer.update(appliance, **changes)


def _check_references(reader: Reader, image_id: int | None, kernel_id: int | None, resource_id: int | None) -> None:
    for kind, record_id, field in (
        (Image, image_id, "image_id"),
        (Kernel, kernel_id, "kernel_id"),
        (Resource, resource_id, "resource_id"),
    ):
        if record_id is not None and record_id != -1 and not reader.find(kind, limit=1, id=record_id):
            raise InvalidError(f"there is no {kind.entity.name} {record_id}", field=field)


def remove(writer: Writer, call: Call) -> None:
    """Forget a stopped appliance; its image stays."""
    appliance: Appliance = call.target  # type: ignore[assignment]  # the declaration's target is Appliance
    for lease in writer.find(Lease, appliance_id=appliance.id):
        writer.delete(Lease, lease.id)
    writer.delete(Appliance, appliance.id)


def admit_start(reader: Reader, call: Call) -> Plan:
    """What is claimed in the moment of the call: the state, the resource and the image's lease."""
    appliance: Appliance = call.target  # type: ignore[assignment]  # the declaration's target is Appliance
    _kernel_of(reader, appliance)
    state = {"entity": "appliance", "id": appliance.id}
    return Plan(
        steps=(
            Change(
                name="starting",
                title="Mark the appliance as starting",
                change="state.apply",
                arguments=state | {"event": "start", "set": {"desired": ApplianceDesired.RUNNING}},
                undo="state.apply",
                undo_arguments=state | {"event": "start-undone", "set": {"desired": ApplianceDesired.STOPPED}},
            ),
            Change(
                name="lease",
                title="Take a resource and the image's lease",
                change="lease.acquire",
                arguments={"appliance_id": appliance.id},
                undo="lease.undo-acquire",
            ),
        )
    )


def admit_stop(reader: Reader, call: Call) -> Plan:
    """The appliance is stopping from the moment of the call."""
    del reader
    appliance: Appliance = call.target  # type: ignore[assignment]  # the declaration's target is Appliance
    return Plan(
        steps=(
            Change(
                name="stopping",
                title="Mark the appliance as stopping",
                change="state.apply",
                arguments={
                    "entity": "appliance",
                    "id": appliance.id,
                    "event": "stop",
                    "set": {"desired": ApplianceDesired.STOPPED},
                },
                undo=Irreversible(reason="a stop goes forward"),
            ),
        )
    )


def targets(reader: Reader, call: Call) -> tuple[str, ...]:
    """Start and stop exclude others from the image's volume too."""
    appliance: Appliance = call.target  # type: ignore[assignment]  # the declaration's target is Appliance
    image = reader.get(Image, appliance.image_id)
    return (f"image-{image.id}", f"volume-{image.volume_id}")


class _Parts:
    """Everything a running appliance consists of, looked up once per planning."""

    def __init__(self, context: PlanContext) -> None:
        target: Appliance = context.target  # type: ignore[assignment]  # the declaration's target is Appliance
        read = context.read
        self.appliance = read.get(Appliance, target.id)
        self.image = read.get(Image, self.appliance.image_id)
        self.volume = read.get(Volume, self.image.volume_id)
        self.storage = read.get(Storage, self.volume.storage_id)
        lease = read.one(Lease, held_image=self.image.id)
        if lease is None or lease.appliance_id != self.appliance.id:
            raise ConflictError(f"appliance {self.appliance.name} holds no lease on image {self.image.name}")
        self.lease = lease
        self.resource = read.get(Resource, lease.resource_id)
        self.place: StorageContext = context.drivers.context(self.storage, read)
        self.export: ExportDriver = context.drivers.export(self.storage)
        self.location = context.drivers.pool(self.storage).location(self.place, self.volume)
        self.client = Client(self.resource.id, self.resource.address or "", self.resource.mac or "", self.resource.name)
        self._declared = _declares(context, self.storage, Cap.REVOKE_PROOF)
        self._facts = context.facts

    @property
    def revocable(self) -> bool:
        """Whether this storage host can prove access revoked; asked when the export's facts are there."""
        return self._declared and confirmed(self.export, Cap.REVOKE_PROOF, self.place, self._facts)


def _declares(context: PlanContext, storage: Storage, capability: Cap) -> bool:
    try:
        context.drivers.require(storage, capability)
    except UnsupportedError:
        return False
    return True


def _kernel_of(reader: Reader, appliance: Appliance) -> Kernel:
    if appliance.kernel_id is not None:
        return reader.get(Kernel, appliance.kernel_id)
    kernel = reader.one(Kernel, default=True)
    if kernel is None:
        raise ConflictError(
            "there is no default kernel", field="kernel_id", remedy="openqrm kernel add -n NAME -v VERSION"
        )
    return kernel


def export_facts(context: PlanContext) -> Sequence[Fact[Any]]:
    """What the export must know of its host to grant and revoke."""
    parts = _Parts(context)
    return parts.export.facts(parts.place)


def plan_start(context: PlanContext) -> Plan:
    """Grant access, deploy, wait for the agent inside the image. Undone in reverse."""
    parts = _Parts(context)
    generation = parts.lease.generation
    granted = parts.export.authorize(parts.place, parts.volume, parts.location, parts.client, generation, context.facts)
    return Plan(
        steps=(
            *granted,
            *context.hooks.appliance("start", parts.appliance, parts.resource),
            *_deploy(parts),
            *_mark_running(parts),
            *context.hooks.appliance("started", parts.appliance, parts.resource),
        )
    )


def _deploy(parts: _Parts) -> Steps:
    machine = {"resource_id": parts.resource.id}
    return (
        Wait(
            name="ready",
            title=f"{parts.resource.name} is idle",
            condition="resource.ready",
            undo_condition="resource.back",
            arguments=machine | {"revocable": parts.revocable},
            timeout=120,
        ),
        Change(
            name="take",
            title=f"Take {parts.resource.name} out of the idle pool",
            change="resource.take",
            arguments=machine,
            undo="resource.give-back",
            undo_arguments=machine,
        ),
        Change(
            name="deploy",
            title=f"Order {parts.resource.name} to mount and run {parts.image.name}",
            change="order.issue",
            arguments=machine | {"verb": "deploy"},
            undo="order.recall",
        ),
        Wait(
            name="running-image",
            title=f"{parts.resource.name} speaks from inside {parts.image.name}",
            condition="resource.image-running",
            arguments=machine
            | {"lease_id": parts.lease.id, "order_id": Output(step="deploy", field="order_id").model_dump()},
            timeout=_DEPLOY_SECONDS,
        ),
    )


def _mark_running(parts: _Parts) -> Steps:
    state = {"entity": "appliance", "id": parts.appliance.id}
    return (
        Change(
            name="running",
            title=f"Mark {parts.appliance.name} as running",
            change="state.apply",
            arguments=state | {"event": "started", "set": {"started_at": "now", "health": "ok"}},
            undo="state.apply",
            undo_arguments=state | {"event": "start-failing", "set": {"started_at": None, "health": "unknown"}},
        ),
    )


def plan_stop(context: PlanContext) -> Plan:
    """Shut down, prove the machine gone, revoke, release. Goes forward only."""
    parts = _Parts(context)
    forward = Irreversible(reason="a stop goes forward")
    machine = {"resource_id": parts.resource.id}
    revoked = parts.export.revoke(
        parts.place, parts.volume, parts.location, parts.client, parts.lease.generation, context.facts
    )
    return Plan(
        steps=(
            *context.hooks.appliance("stop", parts.appliance, parts.resource),
            Change(
                name="give-back",
                title=f"{parts.resource.name} goes back to the idle pool",
                change="resource.give-back",
                arguments=machine,
                undo=forward,
            ),
            Change(
                name="idle",
                title=f"Order {parts.resource.name} to shut down and idle",
                change="order.issue",
                arguments=machine | {"verb": "idle"},
                undo=forward,
            ),
            Wait(
                name="gone",
                title=f"{parts.resource.name} is proved gone from {parts.image.name}",
                condition="resource.gone",
                arguments=machine
                | {"boot_id": Output(step="idle", field="boot_id").model_dump(), "revocable": parts.revocable},
                timeout=_RETURN_SECONDS,
            ),
            *revoked,
            Change(
                name="release",
                title="Release the lease",
                change="lease.release",
                arguments={"lease_id": parts.lease.id},
                undo=forward,
            ),
            Change(
                name="stopped",
                title=f"Mark {parts.appliance.name} as stopped",
                change="state.apply",
                arguments={
                    "entity": "appliance",
                    "id": parts.appliance.id,
                    "event": "stopped",
                    "set": {"started_at": None, "health": "unknown"},
                },
                undo=forward,
            ),
            *context.hooks.appliance("stopped", parts.appliance, None),
        )
    )


_STOPPED = {"phase": frozenset({str(AppliancePhase.STOPPED)})}
_HERE = "openqrm.operations.appliance"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="appliance.create",
        title="Create appliance",
        summary="Join an image, a kernel and a resource or requirements under a name; nothing is started.",
        creates=Appliance,
        arguments=CreateArguments,
        act=f"{_HERE}:create",
    ),
    Operation(
        name="appliance.update",
        title="Change appliance",
        summary="Change kernel, image, resource or requirements of a stopped appliance.",
        target=Appliance,
        arguments=UpdateArguments,
        allowed=_STOPPED,
        act=f"{_HERE}:update",
    ),
    Operation(
        name="appliance.remove",
        title="Remove appliance",
        summary="Forget a stopped appliance; its image and volume stay.",
        target=Appliance,
        allowed=_STOPPED,
        destroys=True,
        act=f"{_HERE}:remove",
    ),
    Operation(
        name="appliance.start",
        title="Start appliance",
        summary="Take a resource, grant it the image, boot it, and wait until it answers from inside the image.",
        target=Appliance,
        allowed=_STOPPED,
        admit=f"{_HERE}:admit_start",
        targets=f"{_HERE}:targets",
        phases=(Phase("deploy", plan=f"{_HERE}:plan_start", facts=f"{_HERE}:export_facts"),),
        waits=True,
    ),
    Operation(
        name="appliance.stop",
        title="Stop appliance",
        summary="Shut the machine down, prove it gone, revoke its access and free it.",
        target=Appliance,
        allowed={"phase": frozenset({str(AppliancePhase.RUNNING)})},
        admit=f"{_HERE}:admit_stop",
        targets=f"{_HERE}:targets",
        phases=(Phase("return", plan=f"{_HERE}:plan_stop", facts=f"{_HERE}:export_facts"),),
        forward_only=True,
    ),
)
