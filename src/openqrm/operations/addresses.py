"""Management addresses of machines: kept for life, allocated once, found without looking at all of them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import ConflictError, NoCapacityError
from openqrm.domain.event import Severity
from openqrm.domain.network import Address, Network, Nic, Role
from openqrm.domain.resource import SERVER_ID, Resource

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openqrm.plugin_api.records import Reader, Writer

_TRIES = 16
"""How many collisions with other controllers' allocations are met by taking the next address."""
_WINDOW = 64
"""So many candidates are tried first; only when all are used, all that is given out is looked at."""


@dataclass(frozen=True, slots=True)
class Place:
    """A machine's address and the length of its network's prefix. `row` is the allocation; None: it was lent."""

    address: str
    prefix: int
    row: Address | None = None


def keep_or_allocate(writer: Writer, resource: Resource, source: str) -> Place | None:
    """The machine's own address, allocated now if it has none.

    Without a management network, or with a full one, it stays where it is: at `source`, the address it spoke from.
    """
    kept = place_of(writer, resource)
    if kept is not None and kept.row is not None:
        return kept
    network = _network(writer, source)
    if network is None or network.machines is None:
        return Place(source, 0) if source else None
    try:
        row = take(writer, network)
    except NoCapacityError:
        text = f"network {network.name} has no free machine address: {resource.name} keeps {source or 'none'}"
        writer.event(text, severity=Severity.ERROR, source="machines", about=network)
        return Place(source, 0) if source else None
    return Place(row.address, ipaddress.IPv4Network(network.cidr).prefixlen, row)


def take(writer: Writer, network: Network, *, nic_id: int | None = None, purpose: str = "machine") -> Address:
    """Allocate the next free address of the machine range; NoCapacityError when there is none."""
    if network.machines is None:
        raise NoCapacityError(
            f"network {network.name} has no machine range",
            field="network_id",
            remedy=f"openqrm network update {network.name} --machines-first FIRST --machines-last LAST",
        )
    after = None
    for _ in range(_TRIES):
        free = first_free(writer, network, after)
        if free is None:
            size = (
                int(ipaddress.IPv4Address(network.machines.last))
                - int(ipaddress.IPv4Address(network.machines.first))
                + 1
            )
            raise NoCapacityError(
                f"network {network.name}: all {size} addresses of its machine range are allocated or in use",
                field="network_id",
                remedy="release addresses or widen the range",
            )
        try:
            return writer.insert(Address(network_id=network.id, address=free, nic_id=nic_id, purpose=purpose))
        except ConflictError:
            after = free
    raise ConflictError(f"network {network.name}: too many allocations at once", remedy="try again")


def place_of(reader: Reader, resource: Resource) -> Place | None:
    """Where a machine is by our records."""
    if not resource.address or not _is_ipv4(resource.address):
        return None
    for row in reader.find(Address, address=resource.address, limit=4):
        network = reader.get(Network, row.network_id)
        nic = reader.get(Nic, row.nic_id) if row.nic_id is not None else None
        if nic is None or nic.resource_id == resource.id:
            return Place(row.address, ipaddress.IPv4Network(network.cidr).prefixlen, row)
    return Place(resource.address, 0)


def refuse_taken(writer: Writer, address: str, *, controller: str, resource_id: int | None, mac: str | None) -> None:
    """ConflictError for an address that is the controller's own, or that another resource carries or was allocated.

    `controller` is the installation's own address; `resource_id` and `mac` are who asks, None for what is not there.
    One that was allocated to nobody in particular may be taken. Waits for others that enter addresses by hand, since
    no constraint of the database forbids it.
    """
    writer.reserve(Resource, id=SERVER_ID)
    found = [resource for resource in writer.find(Resource, address=address, limit=2) if resource.id != resource_id]
    if not found and address == controller and resource_id != SERVER_ID:
        raise _taken(address, "is the openQRM server's own", "the server is resource 0: use that")
    for row in writer.find(Address, address=address, nic_id__null=False):
        nic = writer.get(Nic, row.nic_id or 0)
        if nic.resource_id != resource_id and nic.mac != mac:
            found.append(writer.get(Resource, nic.resource_id))
    if found:
        raise _taken(address, f"is resource {found[0].name}'s", "use that resource, or another address")


def _taken(address: str, whose: str, remedy: str) -> ConflictError:
    return ConflictError(f"address {address} {whose}", field="address", remedy=remedy)


def attach(writer: Writer, place: Place, nic: Nic) -> None:
    """Note which card carries the address."""
    if place.row is None:
        return
    if place.row.nic_id != nic.id:
        writer.update(place.row, nic_id=nic.id)
    if nic.network_id != place.row.network_id:
        writer.update(nic, network_id=place.row.network_id)


def _network(reader: Reader, source: str) -> Network | None:
    """The management network the machine speaks from, else the only one that has addresses for machines."""
    found = [one for one in reader.find(Network, role=Role.MANAGEMENT) if one.machines is not None]
    if _is_ipv4(source):
        spoken = ipaddress.IPv4Address(source)
        for network in found:
            if spoken in ipaddress.IPv4Network(network.cidr):
                return network
    return found[0] if len(found) == 1 else None


def first_free(reader: Reader, network: Network, after: str | None = None) -> str | None:
    """The next address of the machine range after the last one given out (or `after`), around the end.

    None when all are used; the gateway and closed boxes' addresses are.

    Five queries at most, however full the network is; three when one of the next 64 is free.
    """
    if network.machines is None:
        return None
    first = int(ipaddress.IPv4Address(network.machines.first))
    last = int(ipaddress.IPv4Address(network.machines.last))
    if after is None:
        newest = reader.find(Address, order="-id", limit=1, network_id=network.id)
        after = newest[0].address if newest else None
    start = int(ipaddress.IPv4Address(after)) + 1 if after else first
    if not first <= start <= last:
        start = first
    reserved = {int(ipaddress.IPv4Address(network.gateway))} if network.gateway else set()
    window = range(start, min(start + _WINDOW, last + 1))
    near = {"address__in": [str(ipaddress.IPv4Address(number)) for number in window]}
    found = _unused(window, _used(reader, network, near) | reserved)
    if found is not None:
        return found
    return _unused(chain(range(start, last + 1), range(first, start)), _used(reader, network, {}) | reserved)


def _used(reader: Reader, network: Network, conditions: dict[str, Any]) -> set[int]:
    """Addresses of the network that are given out. Closed boxes bring theirs and have no allocation."""
    rows = reader.columns(Address, ("address",), network_id=network.id, **conditions)
    boxes = reader.columns(Resource, ("address",), manual=True, **conditions)
    return {int(ipaddress.IPv4Address(text)) for (text,) in [*rows, *boxes] if text and _is_ipv4(text)}


def _unused(candidates: Iterable[int], used: set[int]) -> str | None:
    number = next((one for one in candidates if one not in used), None)
    return None if number is None else str(ipaddress.IPv4Address(number))


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
