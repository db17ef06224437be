"""The leases Kea starts with, and changing one while it runs."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openqrm.domain.network import Address, Network, Nic
from openqrm.domain.resource import Resource
from openqrm.plugins.network.dhcpd.configuration import (
    FOREVER,
    addresses,
    discovery_subnet,
    machines_subnet,
    placeholder,
    served,
    within,
)
from openqrm.plugins.network.dhcpd.kea import EMPTY, Kea

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from openqrm.plugin_api.calls import CallContext
    from openqrm.plugin_api.records import Reader

COLUMNS = (
    "address", "hwaddr", "client_id", "valid_lifetime", "expire", "subnet_id",
    "fqdn_fwd", "fqdn_rev", "hostname", "state", "user_context",
)  # fmt: skip
"""Kea's lease file (memfile, version 2.1)."""


@dataclass(frozen=True)
class Host:
    """A machine's address for ever."""

    network_id: int
    address: str
    mac: str


def hosts(reader: Reader) -> dict[tuple[int, str], Host]:
    """Every machine's address in a machine range, by network and address; three queries, whatever their number."""
    networks = served(reader.find(Network))
    nics = {nic.id: nic.mac for nic in reader.find(Nic)}
    found: dict[tuple[int, str], Host] = {}
    for entry in reader.find(Address):
        mac = nics.get(entry.nic_id) if entry.nic_id is not None else None
        if mac:
            found[entry.network_id, entry.address] = Host(entry.network_id, entry.address, mac)
    known = {host.mac for host in found.values()}
    for resource in reader.find(Resource, manual=True):
        for host in by_hand(networks, resource, known):
            found.setdefault((host.network_id, host.address), host)
    return found


def by_hand(networks: Iterable[Network], resource: Resource, known: Iterable[str] = ()) -> list[Host]:
    """A closed box with MAC and address: a fixed reservation where its address is in a machine range."""
    if not resource.manual or resource.mac is None or resource.address is None or resource.mac in known:
        return []
    return [Host(one.id, resource.address, resource.mac) for one in networks if within(one.machines, resource.address)]


def lease_file(
    networks: Sequence[Network], known: Mapping[tuple[int, str], Host], kept: Iterable[Row], now: int
) -> str:
    """The file Kea reads at its start: machines, placeholders, and what discovery had lent and is not over."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    taken = {host.mac for host in known.values()}
    discovery = {discovery_subnet(one.id): set(addresses(one.discovery)) for one in networks}
    for row in kept:
        if row["hwaddr"] not in taken and row["address"] in discovery.get(int(row["subnet_id"]), ()):
            writer.writerow([row.get(column, "") for column in COLUMNS])
    for network in networks:
        for address in addresses(network.machines):
            host = known.get((network.id, address))
            mac = host.mac if host else placeholder(address)
            writer.writerow([address, mac, "", FOREVER, now + FOREVER, machines_subnet(network.id), 0, 0, "", 0, ""])
    return text.getvalue()


Row = dict[str, str]


def living(files: Iterable[str], now: int) -> list[Row]:
    """The leases in Kea's files that are not over; later lines win, a lifetime of 0 is a removal."""
    last: dict[str, Row] = {}
    for text in files:
        for row in csv.DictReader(io.StringIO(text)):
            if row.get("address") and (row.get("expire") or "").isdigit():
                last[row["address"]] = row
    return [row for row in last.values() if row["valid_lifetime"] != "0" and int(row["expire"]) > now]


async def add(context: CallContext, *, network_id: int, address: str, mac: str) -> dict[str, Any]:
    """Give an address to a machine for ever. Idempotent.

    What discovery had lent to the machine is taken back: Kea would renew that one. The machine learns at its next
    renewal, by a refusal, and asks anew.
    """
    kea = Kea(context.directory / "control")
    await _set(kea, network_id, address, mac)
    _, answer = await kea.command("lease4-get-by-hw-address", hw_address=mac)
    for lease in answer.get("leases", []):
        if lease["subnet-id"] == discovery_subnet(network_id):
            await kea.command("lease4-del", ip_address=lease["ip-address"])
        elif lease["subnet-id"] == machines_subnet(network_id) and lease["ip-address"] != address:
            await _set(kea, network_id, lease["ip-address"], placeholder(lease["ip-address"]))
    return {"address": address, "mac": mac}


async def remove(context: CallContext, *, network_id: int, address: str, mac: str) -> dict[str, Any]:
    """Take a machine's address back, unless it is another machine's by now. Idempotent."""
    kea = Kea(context.directory / "control")
    if await _holder(kea, network_id, address) == mac:
        await _set(kea, network_id, address, placeholder(address))
    return {"address": address}


async def is_added(context: CallContext, *, network_id: int, address: str, mac: str) -> bool:
    """Whether the address is the machine's."""
    return await _holder(Kea(context.directory / "control"), network_id, address) == mac


async def is_removed(context: CallContext, *, network_id: int, address: str, mac: str) -> bool:
    """Whether the address is not the machine's any more."""
    return await _holder(Kea(context.directory / "control"), network_id, address) != mac


async def _set(kea: Kea, network_id: int, address: str, mac: str) -> None:
    await kea.command(
        "lease4-update",
        ip_address=address,
        hw_address=mac,
        subnet_id=machines_subnet(network_id),
        valid_lft=FOREVER,
        force_create=True,
    )


async def _holder(kea: Kea, network_id: int, address: str) -> str | None:
    result, lease = await kea.command("lease4-get", ip_address=address)
    if result == EMPTY or lease.get("subnet-id") != machines_subnet(network_id):
        return None
    return str(lease["hw-address"])


def macs(reader: Reader, network: Network, block: Sequence[str]) -> dict[str, str]:
    """Whose machines' these addresses of a network are now."""
    entries = [entry for entry in reader.find(Address, network_id=network.id, address__in=block) if entry.nic_id]
    nics = {nic.id: nic.mac for nic in reader.find(Nic, id__in=[entry.nic_id for entry in entries])}
    found = {entry.address: nics[entry.nic_id] for entry in entries if entry.nic_id in nics}
    for resource in reader.find(Resource, manual=True, address__in=block):
        for host in by_hand([network], resource):
            if not _has_address(reader, host.mac):
                found.setdefault(host.address, host.mac)
    return found


def _has_address(reader: Reader, mac: str) -> bool:
    return any(reader.find(Address, limit=1, nic_id=nic.id) for nic in reader.find(Nic, mac=mac))


async def reserve(kea: Kea, network: Network, block: Sequence[str], look: Callable[[], Mapping[str, str]]) -> None:
    """Give these addresses of a machine range their leases, in a server that runs, while machines come and go.

    `look` says whose they are at the moment. An address that is a machine's in the server is not taken from it here:
    `remove` does that.
    """
    before = look()
    for address in block:
        if address in before:
            await _set(kea, network.id, address, before[address])
        elif await _holder(kea, network.id, address) is None:
            await _set(kea, network.id, address, placeholder(address))
    for address, mac in look().items():  # who came between the look and the placeholder
        if before.get(address) != mac:
            await _set(kea, network.id, address, mac)
