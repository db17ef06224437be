"""Addresses: the next free one of a network's machine range, each allocated once by the database's constraint."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from openqrm.domain.errors import ConflictError, InvalidError
from openqrm.domain.model import Attr, Id
from openqrm.domain.network import Address, Ipv4, Network, Nic
from openqrm.domain.resource import Resource
from openqrm.operations import addresses
from openqrm.plugin_api.operation import Arguments, Operation

if TYPE_CHECKING:
    from openqrm.plugin_api.operation import Call
    from openqrm.plugin_api.records import Writer


class AddressAllocate(Arguments):
    """An address of a network, the next free one of its machine range unless it is named."""

    network_id: Annotated[Id, Attr("Network", ref="network")]
    nic_id: Annotated[Id | None, Attr("NIC", ref="nic", help="the card it is for")] = None
    address: Annotated[Ipv4 | None, Attr("Address", help="empty: the next free one")] = None
    purpose: Annotated[str, Field(max_length=63), Attr("Purpose")] = "machine"


def allocate(writer: Writer, call: Call) -> Address:
    """NoCapacityError when the range is used up; ConflictError for a named address that is taken."""
    asked: AddressAllocate = call.arguments
    network = writer.get(Network, asked.network_id)
    if asked.nic_id is not None:
        writer.get(Nic, asked.nic_id)
    if asked.address is not None:
        _check_inside(network, asked.address)
        return writer.insert(
            Address(network_id=network.id, address=asked.address, nic_id=asked.nic_id, purpose=asked.purpose)
        )
    return addresses.take(writer, network, nic_id=asked.nic_id, purpose=asked.purpose)


def _check_inside(network: Network, address: str) -> None:
    number = IPv4Address(address)
    whole = IPv4Network(network.cidr)
    edge = whole.prefixlen < 31 and number in (whole.network_address, whole.broadcast_address)
    if number not in whole or edge:
        raise InvalidError(f"address: {address} is no host address of {network.cidr}", field="address")
    if network.gateway == address:
        raise ConflictError(f"address: {address} is the gateway of {network.name}", field="address")


def release(writer: Writer, call: Call) -> None:
    """The address may be allocated again; ConflictError while a resource carries it."""
    address = call.target
    assert isinstance(address, Address)  # noqa: S101  # the declaration's target
    owner = writer.get(Nic, address.nic_id).resource_id if address.nic_id is not None else None
    for resource in writer.find(Resource, address=address.address):
        if owner in (None, resource.id):
            raise ConflictError(
                f"address {address.address} is carried by resource {resource.name}",
                remedy="remove the resource, or give it another address first",
            )
    writer.delete(Address, address.id)


_HERE = "openqrm.operations.core_address"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="address.allocate",
        title="Allocate an address",
        summary="Take the next free address of a network, or a named one",
        arguments=AddressAllocate,
        creates=Address,
        act=f"{_HERE}:allocate",
    ),
    Operation(
        name="address.release",
        title="Release an address",
        summary="Let an address be allocated again",
        target=Address,
        destroys=True,
        act=f"{_HERE}:release",
    ),
)
