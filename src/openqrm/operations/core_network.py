"""Networks: their ranges lie inside the network, apart from each other and from the gateway."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from openqrm.domain.errors import ConflictError, InvalidError
from openqrm.domain.network import Address, AddressRange, Network, Nic
from openqrm.operations import in_use
from openqrm.operations.arguments import creating, given, updating
from openqrm.plugin_api.operation import Operation

if TYPE_CHECKING:
    from openqrm.plugin_api.operation import Call
    from openqrm.plugin_api.records import Reader, Writer

NetworkCreate = creating(Network)
NetworkUpdate = updating(Network)


def create(writer: Writer, call: Call) -> Network:
    """A network whose addresses no other one has."""
    network = Network(**{name: getattr(call.arguments, name) for name in type(call.arguments).model_fields})
    check_ranges(network)
    _refuse_overlap(writer, network)
    return writer.insert(network)


def update(writer: Writer, call: Call) -> Network:
    """Change a network; ranges must keep every address that machines already have."""
    network = _target(call)
    changes = given(call.arguments)
    check_ranges(Network.model_validate(network.model_dump() | changes))
    return writer.update(network, **changes)


def remove(writer: Writer, call: Call) -> None:
    """Forget a network that nothing uses."""
    network = _target(call)
    in_use.refuse(writer, network, (Nic, "network_id"), (Address, "network_id"))
    writer.delete(Network, network.id)


def check_ranges(network: Network) -> None:
    """InvalidError for a range outside the network, turned around, or over another one or the gateway."""
    whole = IPv4Network(network.cidr)
    usable = (int(whole.network_address) + 1, int(whole.broadcast_address) - 1)
    if whole.prefixlen >= 31:
        usable = (int(whole.network_address), int(whole.broadcast_address))
    ranges = {name: _numbers(found) for name in ("machines", "discovery") if (found := getattr(network, name))}
    for name, (first, last) in ranges.items():
        if first > last:
            raise InvalidError(f"{name}: its first address is above its last", field=name, remedy="swap them")
        if first < usable[0] or last > usable[1]:
            raise InvalidError(
                f"{name}: it is not inside {network.cidr}",
                field=name,
                remedy=f"usable are {IPv4Address(usable[0])} to {IPv4Address(usable[1])}",
            )
    if len(ranges) == 2 and _overlap(ranges["machines"], ranges["discovery"]):
        raise InvalidError("discovery: it overlaps the machine range", field="discovery", remedy="keep them apart")
    _check_gateway(network, whole, ranges)


def _check_gateway(network: Network, whole: IPv4Network, ranges: dict[str, tuple[int, int]]) -> None:
    if network.gateway is None:
        return
    gateway = IPv4Address(network.gateway)
    if gateway not in whole:
        raise InvalidError(f"gateway: {gateway} is not inside {network.cidr}", field="gateway")
    for name, (first, last) in ranges.items():
        if first <= int(gateway) <= last:
            raise InvalidError(f"{name}: the gateway {gateway} lies inside it", field=name, remedy="leave it out")


def _refuse_overlap(reader: Reader, network: Network) -> None:
    whole = IPv4Network(network.cidr)
    for other in reader.find(Network):
        if other.vlan == network.vlan and whole.overlaps(IPv4Network(other.cidr)):
            raise ConflictError(
                f"cidr: {network.cidr} overlaps {other.cidr} of network {other.name}",
                field="cidr",
                remedy="choose another one, or another VLAN",
            )


def _numbers(found: AddressRange) -> tuple[int, int]:
    return int(IPv4Address(found.first)), int(IPv4Address(found.last))


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _target(call: Call) -> Network:
    assert isinstance(call.target, Network)  # noqa: S101  # the declaration's target
    return call.target


_HERE = "openqrm.operations.core_network"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="network.create",
        title="Add a network",
        summary="Declare a network and the ranges addresses are allocated from",
        arguments=NetworkCreate,
        creates=Network,
        act=f"{_HERE}:create",
    ),
    Operation(
        name="network.update",
        title="Change a network",
        summary="Change ranges, gateway, DNS servers or role of a network",
        target=Network,
        arguments=NetworkUpdate,
        act=f"{_HERE}:update",
    ),
    Operation(
        name="network.remove",
        title="Remove a network",
        summary="Forget a network that nothing uses",
        target=Network,
        destroys=True,
        act=f"{_HERE}:remove",
    ),
)
