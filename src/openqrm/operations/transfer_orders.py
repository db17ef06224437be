"""What a machine is told to copy, computed from the loans it holds when it asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.errors import ForbiddenError
from openqrm.domain.lease import LeaseState, Loan
from openqrm.domain.machine import Stage
from openqrm.domain.resource import MachineOrder, Resource
from openqrm.operations.machine_orders import OPEN
from openqrm.operations.mounting import borrowed_mount, mount_set
from openqrm.operations.workers import TRANSFER

if TYPE_CHECKING:
    from openqrm.operations.machine_tokens import Session
    from openqrm.operations.mounting import Surroundings
    from openqrm.plugin_api.records import Reader

_SIDES = (("FROM_", "from"), ("TO_", "to"))
"""The prefix of a mount set, and which of the order's details names its volume."""


def assignments(reader: Reader, session: Session, order_id: int, around: Surroundings) -> dict[str, str]:
    """The answer of `/node/v1/transfer/ORDER`.

    ForbiddenError for another machine or boot than the one that was ordered to, for an order that is over, and for a
    volume that is not lent to it; ConflictError when a plug-in that is needed is not enabled.
    """
    order = _order(reader, session, order_id)
    found = {"ORDER": str(order.id)}
    for prefix, side in _SIDES:
        loan = _loan(reader, order, int(order.details.get(side, -1)))
        found |= mount_set(reader, around, borrowed_mount(reader, around, loan), prefix)
    return found


def _order(reader: Reader, session: Session, order_id: int) -> MachineOrder:
    order = reader.one(MachineOrder, id=order_id, resource_id=session.resource_id, verb=TRANSFER)
    resource = reader.get(Resource, session.resource_id)
    here = resource.boot_id == session.boot_id and session.stage is Stage.INITRAMFS
    if order is None or order.state not in OPEN or order.boot_id != session.boot_id or not here:
        raise ForbiddenError("this boot of this machine has no such order")
    return order


def _loan(reader: Reader, order: MachineOrder, volume_id: int) -> Loan:
    held = reader.find(
        Loan,
        volume_id=volume_id,
        resource_id=order.resource_id,
        operation_id=order.operation_id,
        state=LeaseState.HELD,
        limit=1,
    )
    if not held:
        raise ForbiddenError("what this order is about is not lent to this machine")
    return held[0]
