"""Management addresses of machines: kept for life, allocated once, found without looking at all of them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openqrm.domain.errors import ConflictError, NoCapacityError
from openqrm.domain.event import Severity
from openqrm.domain.network import Address, Network, Nic, Role
from openqrm.domain.resource import Resource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openqrm.plugin_api.records import Reader, Writer

_TRIES = 16
"""How many collisions with other controllers' allocations are met by taking the next address."""
_WINDOW = 64
"""How many candidates one query asks about."""


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

    One query finds the last, and one more settles it unless 64 addresses in a row are used.
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
    for window in _windows(first, last, start):
        texts = [str(ipaddress.IPv4Address(number)) for number in window if number not in reserved]
        used = {row.address for row in reader.find(Address, network_id=network.id, address__in=texts)}
        # Closed boxes bring their address and have no allocation.
        used |= {box.address or "" for box in reader.find(Resource, manual=True, address__in=texts)}
        for text in texts:
            if text not in used:
                return text
    return None


def _windows(first: int, last: int, start: int) -> Iterator[range]:
    for low, high in ((start, last), (first, start - 1)):
        for place in range(low, high + 1, _WINDOW):
            yield range(place, min(place + _WINDOW, high + 1))


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
