"""Answers IPv6 router solicitations with "no router here", so that iPXE does not wait for one.

After its IPv4 address iPXE sends router solicitations and waits about 16 s for an answer before it goes on (Debian's
builds of 2019, QEMU's network ROMs too). An advertisement with router lifetime 0 and no prefix (RFC 4861, 4.2) ends the
wait and configures nothing. It goes to the machine that asked alone, from a link-local address of our own that is no
router's, so nobody's default route is touched; the server itself needs neither IPv6 nor forwarding.

Run as `python -m openqrm.plugins.network.dhcpd.advertise KEA-CONFIGURATION`: it answers on Kea's interfaces and
follows changes of that file.
"""

from __future__ import annotations

import ctypes
import json
import select
import socket
import struct
import sys
from pathlib import Path

ETH_P_IPV6 = 0x86DD
SOLICITATION, ADVERTISEMENT = 133, 134
_ALL_ROUTERS = bytes.fromhex("333300000002")
_SO_ATTACH_FILTER = 26
_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, _PACKET_MR_MULTICAST = 263, 1, 0
_FOLLOW_SECONDS = 5.0
_ETHERNET, _IPV6 = 14, 40
# Classic BPF: IPv6 next header is ICMPv6 (58) and its type is 133; anything else never wakes us.
_FILTER = (
    (0x30, 0, 0, _ETHERNET + 6),
    (0x15, 0, 3, socket.IPPROTO_ICMPV6),
    (0x30, 0, 0, _ETHERNET + _IPV6),
    (0x15, 0, 1, SOLICITATION),
    (0x06, 0, 0, 2048),
    (0x06, 0, 0, 0),
)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of data of even length."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def link_local(mac: bytes) -> bytes:
    """Our own link-local address on an interface: not the EUI-64 one, which a real router on this server would use."""
    return b"\xfe\x80" + bytes(6) + b"\x6f\x71" + mac


def answer(frame: bytes, mac: bytes) -> bytes | None:
    """The frame that answers a solicitation; None for one that is none (RFC 4861, 6.1.1)."""
    if len(frame) < _ETHERNET + _IPV6 + 8 or frame[_ETHERNET + 6] != socket.IPPROTO_ICMPV6:
        return None
    if frame[_ETHERNET + _IPV6] != SOLICITATION or frame[_ETHERNET + 7] != 255:
        return None
    asker_mac, asker = frame[6:12], frame[_ETHERNET + 8 : _ETHERNET + 24]
    # A machine without an address yet is answered through "all nodes", but still at its own MAC alone.
    target = asker if any(asker) else socket.inet_pton(socket.AF_INET6, "ff02::1")
    source = link_local(mac)
    body = struct.pack("!BBHBBHII", ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0)
    pseudo = source + target + struct.pack("!IHBB", len(body), 0, 0, socket.IPPROTO_ICMPV6)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), socket.IPPROTO_ICMPV6, 255) + source + target
    return asker_mac + mac + struct.pack("!H", ETH_P_IPV6) + header + body


def interfaces(configuration: Path) -> set[str]:
    """The interfaces Kea serves; none while there is no readable configuration."""
    try:
        body = json.loads(configuration.read_text(encoding="utf-8"))
        return set(body["Dhcp4"]["interfaces-config"]["interfaces"])
    except (OSError, ValueError, KeyError):
        return set()


def listen(interface: str) -> socket.socket | None:
    """A socket that gets solicitations on one interface; None while there is no such interface."""
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in _FILTER))
        attach = struct.pack("HL", len(_FILTER), ctypes.addressof(program))
        found.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, attach)
        found.bind((interface, ETH_P_IPV6))
        member = struct.pack("IHH8s", socket.if_nametoindex(interface), _PACKET_MR_MULTICAST, 6, _ALL_ROUTERS)
        found.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, member)
    except OSError as error:
        found.close()
        print(f"{interface}: {error}", flush=True)
        return None
    return found


def serve(configuration: Path) -> None:
    """Answer for ever."""
    sockets: dict[str, socket.socket] = {}
    while True:
        wanted = interfaces(configuration)
        for name in set(sockets) - wanted:
            sockets.pop(name).close()
        for name in wanted - set(sockets):
            opened = listen(name)
            if opened is not None:
                sockets[name] = opened
        readable, _, _ = select.select(list(sockets.values()), [], [], _FOLLOW_SECONDS)
        for one in readable:
            if not _answer_one(one):
                sockets = {name: kept for name, kept in sockets.items() if kept is not one}
                one.close()


def _answer_one(one: socket.socket) -> bool:
    """Answer what waits on a socket; whether it is still of use."""
    try:
        frame, address = one.recvfrom(2048)
        mac: bytes = one.getsockname()[4]
        reply = answer(frame, mac)
        if address[2] != socket.PACKET_OUTGOING and reply is not None:
            one.send(reply)
    except OSError as error:  # the interface went away; it is opened again when it is back
        print(f"router solicitation: {error}", flush=True)
        return False
    return True


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
