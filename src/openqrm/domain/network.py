"""Networks, network cards and the addresses allocated to them."""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from openqrm.domain.model import Attr, Entity, Id, Mac, Name, Record


def _cidr(text: str) -> str:
    try:
        return str(ipaddress.IPv4Network(text, strict=True))
    except ValueError as error:
        raise ValueError(f"not an IPv4 network: {error}; for example 10.99.0.0/24") from error


def _address(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError as error:
        raise ValueError(f"not an IPv4 address: {error}") from error


def plain_ip(text: str) -> str:
    """An IPv4 or IPv6 address as text; ValueError. An IPv6 zone (`%…`) is refused: it may hold any characters."""
    if "%" in text:
        raise ValueError(f"not an IP address: {text!r} has a zone")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise ValueError(f"not an IP address: {error}") from error


Cidr = Annotated[str, Field(max_length=18), AfterValidator(_cidr)]
Ipv4 = Annotated[str, Field(max_length=15), AfterValidator(_address)]


class Role(StrEnum):
    """What a network is for."""

    MANAGEMENT = "management"
    STORAGE = "storage"
    PUBLIC = "public"


class AddressRange(BaseModel):
    """A run of addresses, both ends included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: Ipv4
    last: Ipv4


class Network(Record):
    """An IPv4 network with the ranges we allocate from."""

    entity: ClassVar[Entity] = Entity(
        name="network", plural="networks", title="Network", summary="CIDR, VLAN, role and address ranges"
    )

    name: Annotated[Name, Attr("Name", unique=True, filter=True, search=True, listed=True)]
    cidr: Annotated[Cidr, Attr("CIDR", unique=True, listed=True, immutable=True)]
    role: Annotated[Role, Attr("Role", filter=True, listed=True)] = Role.MANAGEMENT
    vlan: Annotated[int, Field(ge=0, le=4094), Attr("VLAN", help="0: untagged", listed=True)] = 0
    gateway: Annotated[Ipv4 | None, Attr("Gateway")] = None
    dns: Annotated[tuple[Ipv4, ...], Attr("DNS servers")] = ()
    interface: Annotated[
        str, Field(max_length=15), Attr("Interface", help="of the server in this network; DHCP listens there")
    ] = ""
    machines: Annotated[AddressRange | None, Attr("Machine range", help="allocated to registered machines")] = None
    discovery: Annotated[AddressRange | None, Attr("Discovery range", help="lent to machines not known yet")] = None


class Nic(Record):
    """A network card of a resource."""

    entity: ClassVar[Entity] = Entity(
        name="nic", plural="nics", title="NIC", summary="A network card of a resource", label="mac"
    )

    resource_id: Annotated[Id, Attr("Resource", ref="resource", filter=True, listed=True)]
    mac: Annotated[Mac, Attr("MAC address", unique=True, filter=True, search=True, listed=True)]
    name: Annotated[str, Field(max_length=63), Attr("Name", listed=True)] = ""
    network_id: Annotated[Id | None, Attr("Network", ref="network", filter=True, listed=True)] = None
    boot: Annotated[bool, Attr("Boot NIC", listed=True)] = False
    driver: Annotated[str, Field(max_length=63), Attr("Driver")] = ""
    speed_mbit: Annotated[int, Field(ge=0, le=10_000_000), Attr("Speed", unit="Mbit/s")] = 0


class Address(Record):
    """An address allocated once: the pair (network, address) is unique in the database."""

    entity: ClassVar[Entity] = Entity(
        name="address",
        plural="addresses",
        title="Address",
        summary="An address allocated in a network",
        label="address",
        unique=(("network_id", "address"),),
    )

    network_id: Annotated[Id, Attr("Network", ref="network", filter=True, listed=True)]
    address: Annotated[Ipv4, Attr("Address", filter=True, search=True, listed=True)]
    nic_id: Annotated[Id | None, Attr("NIC", ref="nic", filter=True, listed=True)] = None
    purpose: Annotated[str, Field(max_length=63), Attr("Purpose", listed=True)] = "machine"
    data: Annotated[dict[str, Any], Attr("Data", derived=True)] = Field(default_factory=dict)
