"""Kea's configuration, computed from the networks of our database. Pure.

Each network is one shared network of two subnets with the same prefix, because Kea keeps lifetimes per subnet:

- *discovery* lends addresses for minutes to machines that are not known yet;
- *machines* holds the addresses we allocated, for ever. A renewal of an infinite lease changes nothing in Kea, so
  a thousand machines that boot at once cost it no write, and a machine that was off for a year keeps its address.

Kea hands out an address only from a pool, and would give free addresses of the machines' pool to anybody. So every
address of that pool always has a lease: a machine's, or a *placeholder's* whose hardware address no card can have.

The second subnet is written with host bits set (`10.99.0.1/24`): Kea 2.2 refuses the same text twice, not the same
prefix.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from openqrm.domain.network import AddressRange, Network

FOREVER = 0xFFFFFFFF
"""RFC 2131, 3.3: an infinite lease."""
LARGEST_RANGE = 1 << 16
"""Addresses in a machine range: each has a lease in the server's memory, and a new range is filled within 20 s."""
HOOKS = (
    "/usr/lib/x86_64-linux-gnu/kea/hooks/libdhcp_lease_cmds.so",
    "/usr/lib/aarch64-linux-gnu/kea/hooks/libdhcp_lease_cmds.so",
    "/usr/lib/kea/hooks/libdhcp_lease_cmds.so",
    "/usr/lib64/kea/hooks/libdhcp_lease_cmds.so",
)
IPXE = "ipxe"


def discovery_subnet(network_id: int) -> int:
    """Kea's subnet id of a network's discovery range."""
    return 2 * network_id + 1


def machines_subnet(network_id: int) -> int:
    """Kea's subnet id of a network's machine range."""
    return 2 * network_id + 2


def served(networks: Iterable[Network]) -> tuple[Network, ...]:
    """The networks we do DHCP in: those with an interface of this server and a range."""
    return tuple(one for one in networks if one.interface and (one.machines or one.discovery))


def addresses(span: AddressRange | None) -> list[str]:
    """Every address of a range; InvalidError for one that is too large to keep a lease for each."""
    if span is None:
        return []
    first, last = int(ipaddress.IPv4Address(span.first)), int(ipaddress.IPv4Address(span.last))
    if last - first >= LARGEST_RANGE:
        raise InvalidError(
            f"{span.first} to {span.last}: a machine range has at most {LARGEST_RANGE} addresses", field="machines"
        )
    return [str(ipaddress.IPv4Address(number)) for number in range(first, last + 1)]


def within(span: AddressRange | None, address: str) -> bool:
    """Whether an address is in a range."""
    if span is None:
        return False
    return ipaddress.IPv4Address(span.first) <= ipaddress.IPv4Address(address) <= ipaddress.IPv4Address(span.last)


def placeholder(address: str) -> str:
    """The hardware address that holds a free one: a multicast address, which no network card has."""
    return "ff:00:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(address).packed)


def configuration(
    networks: Sequence[Network],
    directory: Path,
    settings: Mapping[str, Any],
    installation: Mapping[str, Any],
    hook: str,
) -> dict[str, Any]:
    """The whole configuration; `hook` is the path of Kea's lease_cmds library."""
    ours = served(networks)
    return {
        "Dhcp4": {
            "interfaces-config": {
                "interfaces": sorted({one.interface for one in ours}),
                "dhcp-socket-type": "raw",
                # An interface may come later than the server (a bridge, a bond): about a week of trying.
                "service-sockets-max-retries": 100_000,
                "service-sockets-retry-wait-time": 5000,
            },
            "control-socket": {"socket-type": "unix", "socket-name": str(directory / "control")},
            "lease-database": {
                "type": "memfile",
                "persist": True,
                "name": str(directory / "leases.csv"),
                "lfc-interval": 3600,
            },
            "hooks-libraries": [{"library": hook}],
            "authoritative": True,
            "match-client-id": False,
            "client-classes": _classes(installation),
            "shared-networks": [_shared(one, int(settings["discovery_seconds"])) for one in ours],
            "loggers": [{"name": "kea-dhcp4", "severity": "INFO", "output_options": [{"output": "stdout"}]}],
        }
    }


def _classes(installation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Who boots how. Client architectures: RFC 4578 and IANA's list (0 BIOS, 7 and 9 UEFI x64, 16 UEFI x64 HTTP)."""
    server, url = str(installation["address"]), str(installation["boot_url"])
    loader = {"next-server": server, "server-hostname": server}
    return [
        # iPXE says so by its encapsulated options or its user class; it takes its script over HTTP at once.
        {"name": IPXE, "test": "option[175].exists or option[77].hex == 'iPXE'"},
        {
            "name": "ipxe-script",
            "test": f"member('{IPXE}')",
            "boot-file-name": f"{url}/boot/ipxe",
            # Encapsulated option 176 = 1: there is no ProxyDHCP server to wait for (ipxe.org/cfg/no-pxedhcp).
            "option-data": [{"code": 175, "csv-format": False, "data": "B00101", "always-send": True}],
        },
        {"name": "bios", "test": _arch("0x0000"), "boot-file-name": "undionly.kpxe", **loader},
        {"name": "uefi", "test": f"{_arch('0x0007')} or {_arch('0x0009')}", "boot-file-name": "snponly.efi", **loader},
        {
            "name": "uefi-http",
            "test": _arch("0x0010"),
            "boot-file-name": f"{url}/boot/loaders/snponly.efi",
            "option-data": [{"name": "vendor-class-identifier", "data": "HTTPClient", "always-send": True}],
        },
    ]


def _arch(code: str) -> str:
    return f"(option[93].hex == {code} and not member('{IPXE}'))"


def _shared(network: Network, discovery_seconds: int) -> dict[str, Any]:
    cidr = ipaddress.IPv4Network(network.cidr)
    options = []
    if network.gateway:
        options.append({"name": "routers", "data": network.gateway})
    if network.dns:
        options.append({"name": "domain-name-servers", "data": ", ".join(network.dns)})
    return {
        "name": network.name,
        "interface": network.interface,
        "subnet4": [
            {
                "id": discovery_subnet(network.id),
                "subnet": str(cidr),
                "valid-lifetime": discovery_seconds,
                "pools": _pools(network.discovery),
                "option-data": options,
            },
            {
                "id": machines_subnet(network.id),
                "subnet": f"{cidr.network_address + 1}/{cidr.prefixlen}",
                "valid-lifetime": FOREVER,
                "pools": _pools(network.machines),
                "option-data": options,
            },
        ],
    }


def _pools(span: AddressRange | None) -> list[dict[str, str]]:
    return [{"pool": f"{span.first} - {span.last}"}] if span else []
