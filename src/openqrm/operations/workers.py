"""Machines at work for an operation: idle ones that copy from one volume to another, and go back to the pool.

While it works the machine stays idle by its phase, is nobody else's (`desired`), and holds the loans of both volumes,
so that only a boot with a valid ticket is taken for it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import ConflictError, NoCapacityError
from openqrm.domain.lease import Lease, LeaseState, Loan
from openqrm.domain.resource import Desired, Health, MachineOrder, Phase, Resource
from openqrm.domain.storage import Volume
from openqrm.operations.machine_orders import OPEN
from openqrm.plugin_api.changes import Progress

if TYPE_CHECKING:
    from openqrm.plugin_api.changes import ChangeCall, ChangeFunction, ConditionFunction
    from openqrm.plugin_api.records import Reader, Writer

TRANSFER = "transfer"
"""The order to copy."""
GIVEN_UP = timedelta(minutes=30)
"""A machine that was lost for so long is not waited for: firmware and a memory test take less."""


def take(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`volume_id`, optional `resource_id`: an idle machine, or that very one, is nobody else's from here on.

    `volume_id` is what it will work on: its row is held first, as everybody does who takes a lease or a loan.
    NoCapacityError, ConflictError.
    """
    writer.reserve(Volume, id=int(call.arguments["volume_id"]))
    wanted = call.arguments.get("resource_id")
    resource = _named(writer, int(wanted)) if wanted is not None else _any(writer)
    writer.update(resource, desired=Desired.ASSIGNED)
    return {"resource_id": resource.id}


def _any(writer: Writer) -> Resource:
    """The smallest one: copying needs little."""
    idle = {"phase": Phase.IDLE, "health": Health.OK, "desired": Desired.IDLE, "manual": False}
    found = writer.reserve(Resource, order="memory_mb", limit=1, address__null=False, **idle)
    if not found:
        raise NoCapacityError(
            "no machine is idle to copy with",
            field="resource_id",
            remedy="switch on or free a machine, or ask to wait in the queue (--queue)",
        )
    return found[0]


def _named(writer: Writer, resource_id: int) -> Resource:
    resource = writer.get(Resource, resource_id)
    for held in writer.reserve(Resource, id=resource_id):
        resource = held
    if resource.manual or resource.phase is not Phase.IDLE or resource.desired is not Desired.IDLE:
        what = "assigned" if resource.desired is Desired.ASSIGNED else resource.phase
        raise ConflictError(
            f"resource {resource.name} is {what}: only an idle machine can copy",
            field="resource_id",
            remedy="free it first, or ask to wait in the queue (--queue)",
        )
    if resource.health is not Health.OK or resource.address is None:
        raise ConflictError(f"resource {resource.name} is not heard", field="resource_id")
    return resource


def release(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`resource_id`: back to the pool. Released twice equals released once."""
    return _free(writer, int(call.arguments["resource_id"]))


def undo_take(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """Undo of `worker.take`."""
    return _free(writer, int(call.output["resource_id"]))


def _free(writer: Writer, resource_id: int) -> dict[str, Any]:
    """One that still holds something is not free yet."""
    leased = writer.one(Lease, held_resource=resource_id) is not None
    if leased or writer.find(Loan, resource_id=resource_id, state=LeaseState.HELD, limit=1):
        return {}
    for resource in writer.find(Resource, id=resource_id, desired=Desired.ASSIGNED):
        writer.update(resource, desired=Desired.IDLE)
    return {}


def recall(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """Undo of a `transfer` order: one that is not over yet is ended by a restart, which nothing can hold up."""
    order = writer.get(MachineOrder, int(call.output["order_id"]))
    if order.state not in OPEN:
        return {"restarted": False}
    if order.state == "open":
        writer.update(order, state="void", text="called off before it was taken")
    boot = writer.get(Resource, order.resource_id).boot_id or ""
    writer.insert(
        MachineOrder(resource_id=order.resource_id, operation_id=call.operation_id, verb="reboot", boot_id=boot)
    )
    return {"restarted": True}


def transferred(reader: Reader, call: ChangeCall) -> Progress:
    """The machine reported that the transfer `order_id` is whole. One that restarts in the middle goes on with it."""
    order = reader.get(MachineOrder, int(call.arguments["order_id"]))
    resource = reader.get(Resource, order.resource_id)
    if order.state in ("failed", "void"):
        return Progress(done=False, failed=f"{resource.name} could not copy: {order.text or order.state}")
    if order.state == "done":
        return Progress(done=True, percent=100, text=order.text)
    if resource.phase is Phase.OFF:
        return Progress(done=False, failed=f"{resource.name} was switched off")
    changed = resource.updated_at
    if resource.health is Health.LOST and changed is not None and reader.now - changed > GIVEN_UP:
        return Progress(done=False, failed=f"{resource.name} is lost")
    return Progress(done=False, percent=order.progress, text=order.text or f"transfer: {order.state}")


def back(reader: Reader, call: ChangeCall) -> Progress:
    """While a transfer is undone: `resource_id` no longer uses the volumes, or its access can be revoked for good.

    It does not when it was told nothing, said that the transfer is over (both volumes are unmounted then), is off, or
    is idle after a new boot.
    """
    resource = reader.get(Resource, int(call.arguments["resource_id"]))
    orders = reader.find(
        MachineOrder,
        order="-id",
        limit=1,
        resource_id=resource.id,
        operation_id=call.operation_id,
        verb=call.arguments.get("verb", TRANSFER),
    )
    if not orders:
        return Progress(done=True, text=f"{resource.name} was not told to copy anything")
    if orders[0].state in ("done", "failed"):
        return Progress(done=True, text=f"{resource.name} has ended the transfer")
    if resource.phase is Phase.OFF:
        return Progress(done=True, text=f"{resource.name} is off")
    if resource.phase is Phase.IDLE and resource.boot_id != orders[0].boot_id:
        return Progress(done=True, text=f"{resource.name} is idle after a new boot")
    if call.arguments.get("revocable") and resource.health is Health.LOST:
        return Progress(done=True, text=f"{resource.name} is lost; its access is revoked")
    return Progress(done=False, text=f"{resource.name} is {resource.phase}, health {resource.health}")


WORKER_CHANGES: dict[str, ChangeFunction] = {
    "worker.take": take,
    "worker.undo-take": undo_take,
    "worker.release": release,
    "worker.recall": recall,
}
WORKER_CONDITIONS: dict[str, ConditionFunction] = {"worker.transferred": transferred, "worker.back": back}
