"""The appliance's life cycle: create, start, stop, change, remove. Declarations, admission and records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from openqrm.domain.appliance import Appliance, ApplianceDesired, AppliancePhase, Requirements
from openqrm.domain.errors import ConflictError, InvalidError
from openqrm.domain.kernel import Kernel
from openqrm.domain.lease import Lease, LeaseState
from openqrm.domain.model import Attr, Id, Mac, Name, Text
from openqrm.domain.resource import Resource
from openqrm.domain.storage import Image
from openqrm.domain.user import UserRole
from openqrm.operations import appliance_transfers, depending
from openqrm.plugin_api.operation import Arguments, Operation, Phase, needs
from openqrm.plugin_api.steps import Change, Irreversible, Plan

if TYPE_CHECKING:
    from openqrm.operations.pipeline import CoreCall
    from openqrm.plugin_api.operation import Call
    from openqrm.plugin_api.records import Reader, Writer


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


def create(writer: Writer, call: CoreCall) -> Appliance:
    """Record an appliance; nothing is started."""
    given: CreateArguments = call.arguments
    _check_references(writer, given.image_id, given.kernel_id, given.resource_id)
    values = given.model_dump(exclude={"storage_nic", "requirements"})
    appliance = writer.insert(Appliance(**values, requirements=given.requirements, storage_nic=given.storage_nic or ""))
    call.queue("appliance.announce", appliance.id)
    return appliance


def update(writer: Writer, call: Call) -> Appliance:
    """Change a stopped appliance; refused while an abandoned operation left it a lease."""
    given: UpdateArguments = call.arguments
    appliance: Appliance = call.target  # type: ignore[assignment]  # the declaration's target is Appliance
    depending.refuse_holding(writer, appliance)
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


def admit_remove(reader: Reader, call: Call) -> Plan:
    """Nobody can start it from here on; refused while an abandoned operation left it a lease."""
    appliance: Appliance = call.target  # type: ignore[assignment]  # the declaration's target is Appliance
    depending.refuse_holding(reader, appliance)
    return Plan(
        steps=(
            Change(
                name="removing",
                title="Take the appliance out of use",
                change="state.apply",
                arguments={"entity": "appliance", "id": appliance.id, "event": "remove"},
                undo=Irreversible(reason="a removal goes forward"),
            ),
        )
    )


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
            *appliance_transfers.borrow(reader, appliance, call.settings),
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
    """Start, stop and release exclude others from the image's volume too, and from what it is transferred to.

    What it is filled from is shared with others that are.
    """
    appliance: Appliance = call.target  # type: ignore[assignment]  # the declaration's target is Appliance
    held = reader.find(Lease, appliance_id=appliance.id, state=LeaseState.HELD, limit=1)
    image = reader.get(Image, held[0].image_id if held else appliance.image_id)
    borrowed = appliance_transfers.targets(reader, appliance, None if held else image)
    return (f"image-{image.id}", f"volume-{image.volume_id}", *borrowed)


def _kernel_of(reader: Reader, appliance: Appliance) -> Kernel:
    if appliance.kernel_id is not None:
        return reader.get(Kernel, appliance.kernel_id)
    for kernel in reader.find(Kernel, default=True, limit=1):
        return kernel
    raise ConflictError("there is no default kernel", field="kernel_id", remedy="openqrm kernel add -n NAME -v VERSION")


_STOPPED = {"phase": frozenset({str(AppliancePhase.STOPPED)})}
_HERE = "openqrm.operations.appliance"
_PLANS = "openqrm.operations.appliance_plans"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="appliance.create",
        title="Create an appliance",
        summary="Join an image, a kernel and a resource or requirements under a name; nothing is started.",
        creates=Appliance,
        arguments=CreateArguments,
        act=f"{_HERE}:create",
    ),
    Operation(
        name="appliance.update",
        title="Change an appliance",
        summary="Change kernel, image, resource or requirements of a stopped appliance.",
        target=Appliance,
        arguments=UpdateArguments,
        allowed=_STOPPED,
        act=f"{_HERE}:update",
    ),
    Operation(
        name="appliance.remove",
        title="Remove an appliance",
        summary="Forget a stopped appliance; its image and volume stay.",
        target=Appliance,
        allowed=_STOPPED,
        destroys=True,
        admit=f"{_HERE}:admit_remove",
        phases=(Phase("remove", plan=f"{_PLANS}:plan_remove"),),
        forward_only=True,
    ),
    Operation(
        name="appliance.release",
        title="Release an abandoned appliance",
        summary=(
            "Take back access and lease that an abandoned operation left to a stopped appliance. "
            "Make sure first that its machine is off: nothing else proves it."
        ),
        target=Appliance,
        allowed=_STOPPED,
        permission=needs(UserRole.ADMIN),
        destroys=True,
        targets=f"{_HERE}:targets",
        phases=(Phase("release", plan=f"{_PLANS}:plan_release", facts=f"{_PLANS}:export_facts"),),
        forward_only=True,
    ),
    Operation(
        name="appliance.announce",
        title="Announce an appliance",
        summary="Tell the started plug-ins that there is a new appliance.",
        target=Appliance,
        phases=(Phase("announce", plan=f"{_PLANS}:plan_announce"),),
        internal=True,
    ),
    Operation(
        name="appliance.start",
        title="Start an appliance",
        summary="Take a resource, grant it the image, boot it, and wait until it answers from inside the image.",
        target=Appliance,
        allowed=_STOPPED,
        admit=f"{_HERE}:admit_start",
        targets=f"{_HERE}:targets",
        phases=(Phase("deploy", plan=f"{_PLANS}:plan_start", facts=f"{_PLANS}:export_facts"),),
        waits=True,
    ),
    Operation(
        name="appliance.stop",
        title="Stop an appliance",
        summary="Shut the machine down, prove it gone, revoke its access and free it.",
        target=Appliance,
        allowed={"phase": frozenset({str(AppliancePhase.RUNNING)})},
        admit=f"{_HERE}:admit_stop",
        targets=f"{_HERE}:targets",
        phases=(Phase("return", plan=f"{_PLANS}:plan_stop", facts=f"{_PLANS}:export_facts"),),
        forward_only=True,
    ),
)
