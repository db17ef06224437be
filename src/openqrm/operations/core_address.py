"""Addresses: the next free one of a network's machine range, each allocated once by the database's constraint."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from openqrm.domain.errors import ConflictError, InvalidError, NoCapacityError
from openqrm.domain.model import Attr, Id
from openqrm.domain.network import Address, Ipv4, Network, Nic
from openqrm.plugin_api.operation import Arguments, Operation

if TYPE_CHECKING:
    from openqrm.plugin_api.operation import Call
    from openqrm.plugin_api.records import Reader, Writer

TRIES = 16
"""How many collisions with other allocations are met by taking the next address."""


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
        return writer.insert(_record(network, asked.address, asked.nic_id, asked.purpose))
    return take_next(writer, network, nic_id=asked.nic_id, purpose=asked.purpose)


def take_next(
    writer: Writer,
    network: Network,
    *,
    nic_id: int | None,
    purpose: str = "machine",
    data: dict[str, Any] | None = None,
) -> Address:
    """The address after the one allocated last, around the range's end; NoCapacityError when none is free."""
    if network.machines is None:
        raise NoCapacityError(
            f"network {network.name} has no machine range",
            field="network_id",
            remedy=f"openqrm network update {network.name} --machines-first FIRST --machines-last LAST",
        )
    first, last = int(IPv4Address(network.machines.first)), int(IPv4Address(network.machines.last))
    candidate = _after_latest(writer, network, first, last)
    for _ in range(TRIES):
        candidate = _free_from(writer, network, candidate, first, last)
        try:
            return writer.insert(_record(network, str(IPv4Address(candidate)), nic_id, purpose, data))
        except ConflictError:
            candidate = candidate + 1 if candidate < last else first
    raise ConflictError(f"network {network.name}: too many allocations at once", remedy="try again")


def _record(
    network: Network, address: str, nic_id: int | None, purpose: str, data: dict[str, Any] | None = None
) -> Address:
    return Address(network_id=network.id, address=address, nic_id=nic_id, purpose=purpose, data=data or {})


def _after_latest(reader: Reader, network: Network, first: int, last: int) -> int:
    """Where the search starts: behind the newest allocation, so that no scan of all is needed."""
    newest = reader.find(Address, network_id=network.id, order="-id", limit=1)
    if not newest:
        return first
    number = int(IPv4Address(newest[0].address)) + 1
    return number if first <= number <= last else first


def _free_from(reader: Reader, network: Network, start: int, first: int, last: int) -> int:
    """The first free number at or after `start`, around the end; looked up a block at a time."""
    size, block, number = last - first + 1, 64, start
    for _ in range(0, size + block, block):
        numbers = [first + (number - first + place) % size for place in range(min(block, size))]
        texts = [str(IPv4Address(one)) for one in numbers]
        taken = {found.address for found in reader.find(Address, network_id=network.id, address__in=texts)}
        free = next((one for one, text in zip(numbers, texts, strict=True) if text not in taken), None)
        if free is not None:
            return free
        number = first + (number - first + block) % size
    raise NoCapacityError(
        f"network {network.name}: all {size} addresses of its machine range are allocated",
        field="network_id",
        remedy="release addresses or widen the range",
    )


def _check_inside(network: Network, address: str) -> None:
    number = IPv4Address(address)
    whole = IPv4Network(network.cidr)
    edge = whole.prefixlen < 31 and number in (whole.network_address, whole.broadcast_address)
    if number not in whole or edge:
        raise InvalidError(f"address: {address} is no host address of {network.cidr}", field="address")
    if network.gateway == address:
        raise ConflictError(f"address: {address} is the gateway of {network.name}", field="address")


def release(writer: Writer, call: Call) -> None:
    """The address may be allocated again."""
    address = call.target
    assert isinstance(address, Address)  # noqa: S101  # the declaration's target
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
