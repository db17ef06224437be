"""An AoE client in user space: reads and writes blocks of a device, or writes a counter to one without end.

Run as a program: `python aoe_client.py DEVICE read OFFSET`, which prints the block at OFFSET (bytes); `... write OFFSET
TEXT`; `... count OFFSET`. DEVICE is a shelf and slot, as `e1.2`. It sends raw Ethernet frames from `eth0` and needs
nothing but Python, so that it runs in any network namespace. Protocol: AoEr11 (Coraid, 2009).
"""

from __future__ import annotations

import itertools
import socket
import struct
import sys
import time

INTERFACE = "eth0"
ETHERTYPE = 0x88A2
BROADCAST = b"\xff" * 6
SECTOR = 512
FRAME_SECTORS = 2
"""Sectors that fit into an Ethernet frame of 1,500 bytes."""
BLOCK_BYTES = 4096
_ATA, _CONFIG = 0, 1
_READ_EXT, _WRITE_EXT = 0x24, 0x34
_EXTENDED, _WRITE = 0x40, 0x01
_HEADER = struct.Struct("!BBHBBI")
_COMMAND = struct.Struct("!BBBB6s2x")


class Device:
    """A device on the network of an interface. OSError when nothing answers for it."""

    def __init__(self, name: str, seconds: float = 0.5) -> None:
        shelf, slot = name.removeprefix("e").split(".")
        self._address = int(shelf), int(slot)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
        self._socket.bind((INTERFACE, ETHERTYPE))
        self._socket.settimeout(seconds)
        self._seconds = seconds
        self._own: bytes = self._socket.getsockname()[4]
        self._tags = itertools.count(int(time.time()) & 0xFFFF)
        self._server = BROADCAST

    def find(self) -> None:
        """Ask who serves it. OSError."""
        self._server = BROADCAST
        self._ask(_CONFIG, struct.pack("!HHBBH", 0, 0, 0, 0, 0))

    def read(self, offset: int, size: int) -> bytes:
        """OSError when it is silent or refuses."""
        data = b""
        for sector in range(offset // SECTOR, (offset + size) // SECTOR, FRAME_SECTORS):
            data += self._ask(_ATA, self._command(_EXTENDED, _READ_EXT, sector))[_COMMAND.size :]
        return data[:size]

    def write(self, offset: int, data: bytes) -> None:
        """OSError when it is silent or refuses."""
        frame = FRAME_SECTORS * SECTOR
        for start in range(0, len(data), frame):
            command = self._command(_EXTENDED | _WRITE, _WRITE_EXT, (offset + start) // SECTOR)
            self._ask(_ATA, command + data[start : start + frame].ljust(frame, b"\0"))

    @staticmethod
    def _command(flags: int, command: int, sector: int) -> bytes:
        return _COMMAND.pack(flags, 0, FRAME_SECTORS, command, sector.to_bytes(6, "little"))

    def _ask(self, command: int, body: bytes) -> bytes:
        """One question, sent once; the answer's body."""
        tag = next(self._tags)
        frame = self._server + self._own + struct.pack("!H", ETHERTYPE)
        self._socket.send(frame + _HEADER.pack(0x10, 0, *self._address, command, tag) + body)
        until = time.monotonic() + self._seconds
        while time.monotonic() < until:
            answer, sender = self._socket.recvfrom(9000)
            flags, error, shelf, slot, kind, number = _HEADER.unpack_from(answer, 14)
            # Frames of our own are seen too; an answer has the response flag.
            if not flags & 0x08 or (shelf, slot) != self._address or (kind, number) != (command, tag):
                continue
            if flags & 0x04:
                raise OSError(f"AoE error {error}")
            self._server = sender[4]
            return answer[14 + _HEADER.size :]
        raise TimeoutError("no answer")


def found(name: str, tries: int = 4) -> Device:
    """A device that answers. OSError."""
    device = Device(name)
    for number in range(tries):
        try:
            device.find()
        except TimeoutError:
            if number == tries - 1:
                raise
        else:
            return device
    raise TimeoutError("no answer")


def count(name: str, offset: int) -> None:
    """For ever, whatever errors it meets; after some of them it looks for the server anew."""
    device, number, failed = found(name), 0, 0
    while True:
        number += 1
        try:
            device.write(offset, b"%019d\n" % number)
            failed = 0
            continue
        except OSError as error:
            failed += 1
            print(error, file=sys.stderr, flush=True)
        time.sleep(0.02)
        if failed % 5 == 0:
            try:
                device.find()
            except OSError as error:
                print(error, file=sys.stderr, flush=True)


def main(name: str, verb: str, offset: int, text: str = "") -> None:
    """OSError when the device does not answer or refuses."""
    if verb == "count":
        count(name, offset)
    device = found(name)
    if verb == "read":
        sys.stdout.buffer.write(device.read(offset, BLOCK_BYTES))
    else:
        device.write(offset, text.encode().ljust(BLOCK_BYTES, b"\0"))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:5])
