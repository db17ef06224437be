"""Changes and conditions of resources' own operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.machine import BootTicket, MachineToken
from openqrm.domain.network import Address, Nic
from openqrm.domain.resource import MachineOrder, Resource
from openqrm.plugin_api.changes import Progress

if TYPE_CHECKING:
    from openqrm.plugin_api.changes import ChangeCall, ChangeFunction, ConditionFunction
    from openqrm.plugin_api.records import Reader, Writer

_OF_A_RESOURCE = (MachineOrder, BootTicket, MachineToken)
"""What is kept about a resource alone and goes with it."""


def order_done(reader: Reader, call: ChangeCall) -> Progress:
    """The machine reported that it did the order `order_id`."""
    order = reader.get(MachineOrder, int(call.arguments["order_id"]))
    if order.state in ("failed", "void"):
        return Progress(done=False, failed=f"the machine could not {order.verb}: {order.text or order.state}")
    return Progress(
        done=order.state == "done", percent=order.progress, text=order.text or f"{order.verb}: {order.state}"
    )


def forget_resource(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`resource_id`: remove it with its cards, addresses, orders and tokens; one that is gone already stays gone.

    ConflictError when something else points to it meanwhile.
    """
    resource_id = int(call.arguments["resource_id"])
    if not writer.find(Resource, id=resource_id, limit=1):
        return {}
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
