"""Network cards that did not report themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.errors import ConflictError
from openqrm.domain.network import Address, Network, Nic
from openqrm.domain.resource import Resource
from openqrm.operations import in_use
from openqrm.operations.arguments import creating
from openqrm.plugin_api.operation import Operation

if TYPE_CHECKING:
    from openqrm.plugin_api.operation import Call
    from openqrm.plugin_api.records import Writer

NicCreate = creating(Nic, without=("boot",))


def create(writer: Writer, call: Call) -> Nic:
    """A further card of a resource; NotFoundError when the resource or network is not there."""
    nic = Nic(**{name: getattr(call.arguments, name) for name in type(call.arguments).model_fields})
    writer.get(Resource, nic.resource_id)
    if nic.network_id is not None:
        writer.get(Network, nic.network_id)
    return writer.insert(nic)


def remove(writer: Writer, call: Call) -> None:
    """Forget a card that has no address and is not the boot card."""
    nic = call.target
    assert isinstance(nic, Nic)  # noqa: S101  # the declaration's target
    if nic.boot:
        raise ConflictError(f"{nic.mac} is the boot card of its resource", remedy="remove the resource instead")
    in_use.refuse(writer, nic, (Address, "nic_id"), remedy="release its address first")
    writer.delete(Nic, nic.id)


_HERE = "openqrm.operations.core_nic"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="nic.create",
        title="Add a network card",
        summary="Add a card that a resource did not report by itself",
        arguments=NicCreate,
        creates=Nic,
        act=f"{_HERE}:create",
    ),
    Operation(
        name="nic.remove",
        title="Remove a network card",
        summary="Forget a card that has no address",
        target=Nic,
        destroys=True,
        act=f"{_HERE}:remove",
    ),
)
