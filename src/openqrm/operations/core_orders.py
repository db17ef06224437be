"""Changes and conditions of resources' own operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.appliance import Appliance
from openqrm.domain.errors import ConflictError
from openqrm.domain.lease import Lease, Loan
from openqrm.domain.machine import BootTicket, MachineToken
from openqrm.domain.network import Address, Nic
from openqrm.domain.resource import SERVER_ID, MachineOrder, Resource
from openqrm.domain.storage import Storage
from openqrm.operations import depending, in_use
from openqrm.plugin_api.changes import Progress

if TYPE_CHECKING:
    from openqrm.plugin_api.changes import ChangeCall, ChangeFunction, ConditionFunction
    from openqrm.plugin_api.records import Reader, Writer

_OF_A_RESOURCE = (MachineOrder, BootTicket, MachineToken, Lease, Loan)
"""What is kept about a resource alone and goes with it; of leases and loans, those that are over."""
_USERS = ((Appliance, "resource_id"), (Appliance, "running_on"), (Storage, "resource_id"), (Lease, "held_resource"))
"""What points to a resource that stays: all other references are to what goes with it."""


def order_done(reader: Reader, call: ChangeCall) -> Progress:
    """The machine reported that it did the order `order_id`."""
    order = reader.get(MachineOrder, int(call.arguments["order_id"]))
    if order.state in ("failed", "void"):
        return Progress(done=False, failed=f"the machine could not {order.verb}: {order.text or order.state}")
    return Progress(
        done=order.state == "done", percent=order.progress, text=order.text or f"{order.verb}: {order.state}"
    )


def refuse_used(reader: Reader, resource: Resource) -> None:
    """ConflictError while the resource is the server, or is used by an appliance, a storage, a lease or a loan."""
    if resource.id == SERVER_ID:
        raise ConflictError("resource 0 is the openQRM server itself", remedy="it cannot be removed")
    depending.refuse_borrowing(reader, resource)
    in_use.refuse(reader, resource, *_USERS)


def forget_resource(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`resource_id`: remove it with its cards, addresses, orders, tokens and the leases it once had.

    One that is gone already stays gone. ConflictError as at the call, when something came to use it meanwhile.
    """
    resource_id = int(call.arguments["resource_id"])
    known = writer.one(Resource, id=resource_id)
    if known is None:
        return {}
    refuse_used(writer, known)
    for nic in writer.find(Nic, resource_id=resource_id):
        for address in writer.find(Address, nic_id=nic.id):
            writer.delete(Address, address.id)
        writer.delete(Nic, nic.id)
    for kind in _OF_A_RESOURCE:
        for kept in writer.find(kind, resource_id=resource_id):
            writer.delete(kind, kept.id)
    writer.delete(Resource, resource_id)
    return {}


ORDER_CHANGES: dict[str, ChangeFunction] = {"resource.forget": forget_resource}
ORDER_CONDITIONS: dict[str, ConditionFunction] = {"order.done": order_done}
