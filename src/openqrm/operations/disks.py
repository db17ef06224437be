"""Whole disks of machines: taken into a volume from an idle machine, and what a machine is told for that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from openqrm.domain.errors import ForbiddenError, UnsupportedError
from openqrm.domain.lease import Lease, LeaseState, Loan
from openqrm.domain.machine import Stage
from openqrm.domain.model import Attr, Id
from openqrm.domain.resource import MachineOrder, Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.operations import loans
from openqrm.operations.arguments import creating
from openqrm.operations.grants import Access, prefixed
from openqrm.operations.machine_orders import OPEN
from openqrm.operations.mounting import Mount, disk_set
from openqrm.operations.restoring import first_generation
from openqrm.operations.storage_types import traits
from openqrm.operations.volume import RECORD, offered, record_step
from openqrm.plugin_api.drivers import Start
from openqrm.plugin_api.operation import Operation, Phase
from openqrm.plugin_api.steps import Change, Irreversible, Plan, Wait
from openqrm.plugin_api.values import Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.operations.machine_tokens import Session
    from openqrm.operations.mounting import Surroundings
    from openqrm.plugin_api.facts import Fact
    from openqrm.plugin_api.operation import Call, PlanContext
    from openqrm.plugin_api.records import Reader
    from openqrm.plugin_api.steps import Steps

GRAB = "grab"
"""The order to take the machine's disks."""
WORKER, LOAN = "worker", "borrow"
_GRAB_SECONDS = 24 * 3600
"""Some terabytes over a network."""


VolumeGrab = creating(
    Volume,
    name="VolumeGrab",
    storage_id=(
        Annotated[Id, Attr("Storage", ref="storage", help="of a type for whole disks, such as local-storage")],
        ...,
    ),
    resource_id=(
        Annotated[Id, Attr("Resource", ref="resource", help="the idle machine whose disks are taken")],
        ...,
    ),
)


def assignments(reader: Reader, session: Session, order_id: int, around: Surroundings) -> dict[str, str]:
    """The answer of `/node/v1/disks/ORDER`: where the machine's disks go.

    ForbiddenError for another machine or boot than the one that was ordered to, and for a volume that is not its own.
    """
    order = reader.one(MachineOrder, id=order_id, resource_id=session.resource_id, verb=GRAB)
    resource = reader.get(Resource, session.resource_id)
    here = resource.boot_id == session.boot_id and session.stage is Stage.INITRAMFS
    if order is None or order.state not in OPEN or order.boot_id != session.boot_id or not here:
        raise ForbiddenError("this boot of this machine has no such order")
    volume = reader.get(Volume, int(order.details["volume_id"]))
    storage = reader.get(Storage, volume.storage_id)
    kind = traits(around.settings, storage)
    deployment = around.settings.get("deployments", {}).get(storage.type, "")
    mount = Mount(storage, volume, resource, deployment, _generation(reader, volume, resource), kind.secrets)
    return {"ORDER": str(order.id), **disk_set(reader, around, mount, kind.through)}


def _generation(reader: Reader, volume: Volume, resource: Resource) -> int:
    """Of the lease or the loan by which this machine may write the volume."""
    lease = reader.one(Lease, held_resource=resource.id)
    if lease is not None and reader.get(Image, lease.image_id).volume_id == volume.id:
        return lease.generation
    loan = reader.one(Loan, written=volume.id)
    if loan is not None and loan.resource_id == resource.id and loan.state is LeaseState.HELD:
        return loan.generation
    raise ForbiddenError("the image is not this machine's to write")


def admit_grab(reader: Reader, call: Call) -> Plan:
    """The volume's name, the machine and the right to write are taken. UnsupportedError for another type of storage."""
    given = call.arguments
    storage = reader.get(Storage, given.storage_id)
    if traits(call.settings, storage).start is not Start.DISK:
        raise UnsupportedError(
            f"storage {storage.name} ({storage.type}) holds no whole disks",
            field="storage_id",
            remedy="use one of type local-storage, or of another that ends in -local",
        )
    values = given.model_dump(mode="json", exclude={"resource_id"}) | {"generation": first_generation(reader)}
    new = Output(step=RECORD, field="id").model_dump()
    return Plan(
        steps=(
            record_step(values),
            Change(
                name=WORKER,
                title="Take the machine",
                change="worker.take",
                arguments={"volume_id": new, "resource_id": given.resource_id},
                undo="worker.undo-take",
            ),
            Change(
                name=LOAN,
                title="Let the machine write the new volume",
                change="loan.take",
                arguments={"volume_id": new, "resource_id": given.resource_id, "write": True},
                undo="loan.undo-take",
            ),
        )
    )


class _Grab:
    """What a grab is about, looked up once per planning by the loan that its admission took."""

    def __init__(self, context: PlanContext) -> None:
        (self.loan,) = context.read.find(Loan, operation_id=context.operation_id, limit=1)
        self.volume = context.read.get(Volume, self.loan.volume_id)
        self.storage = context.read.get(Storage, self.volume.storage_id)
        self.machine = context.read.get(Resource, self.loan.resource_id)
        self.access = Access.of(context, self.storage, self.volume, self.machine, self.loan.generation)


def grab_facts(context: PlanContext) -> Sequence[Fact[Any]]:
    """What pool and export must know of their host."""
    parts = _Grab(context)
    return (*context.drivers.pool(parts.storage).facts(parts.access.place), *parts.access.facts())


def plan_grab(context: PlanContext) -> Plan:
    """Make the volume, let the machine write it, order the grab; then all of it is taken back."""
    parts = _Grab(context)
    created = context.drivers.pool(parts.storage).create(parts.access.place, parts.volume, context.facts)
    freed = Change(
        name="free",
        title=f"{parts.machine.name} goes back to the pool",
        change="worker.release",
        arguments={"resource_id": parts.machine.id},
        undo=Irreversible(reason="it may be somebody else's by then"),
    )
    return Plan(
        steps=(
            *created,
            *parts.access.grant(context),
            *_ordered(context, parts),
            *prefixed(parts.access.revoke(context), "end-"),
            loans.returned("return", parts.loan),
            freed,
            *offered(context, parts.storage, parts.volume),
        )
    )


def _ordered(context: PlanContext, parts: _Grab) -> Steps:
    access, volume, machine = parts.access, parts.volume, parts.machine
    revocable = access.revocable(context)
    return (
        Wait(
            name="idle",
            title=f"{machine.name} is idle",
            condition="resource.ready",
            undo_condition="worker.back",
            arguments={"resource_id": machine.id, "verb": GRAB, "revocable": revocable},
            timeout=300,
            undo_timeout=_GRAB_SECONDS,
        ),
        Change(
            name="grab",
            title=f"Order {machine.name} to take its disks into {volume.name}",
            change="order.issue",
            arguments={"resource_id": machine.id, "verb": GRAB, "details": {"volume_id": volume.id}},
            undo="worker.recall",
        ),
        Wait(
            name="grabbed",
            title=f"{machine.name}'s disks are in {volume.name}",
            condition="worker.transferred",
            arguments={"order_id": Output(step="grab", field="order_id").model_dump()},
            timeout=_GRAB_SECONDS,
        ),
    )


_HERE = "openqrm.operations.disks"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="volume.grab",
        title="Grab a machine's disks",
        summary="Make a volume and take all disks of an idle machine into it, byte for byte.",
        creates=Volume,
        arguments=VolumeGrab,
        admit=f"{_HERE}:admit_grab",
        phases=(Phase("grab", plan=f"{_HERE}:plan_grab", facts=f"{_HERE}:grab_facts"),),
        waits=True,
    ),
)
