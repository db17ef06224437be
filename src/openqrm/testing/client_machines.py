"""Machines beside a storage host, each in a network namespace with an address of its own: the clients of exports."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openqrm.admin.lab import network
from openqrm.plugin_api.drivers import Client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack

CARD = "eth0"
"""Each machine's only network card."""
RUN_SECONDS = 30


@dataclass(frozen=True)
class ClientMachine:
    """A machine by its namespace. `number` tells the machines of one test apart, from 1."""

    number: int
    namespace: str
    address: str
    mac: str

    def client(self) -> Client:
        """The machine as drivers see it; its resource id is 10 + `number`."""
        return Client(
            resource_id=10 + self.number, address=self.address, mac=self.mac, name=f"c{self.number}", memory_mb=1024
        )

    def run(self, *argv: str, given: str | None = None, seconds: int = RUN_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run a program on it to its end; status 124 after `seconds`."""
        command = ["timeout", str(seconds), *network.enter(self.namespace, *argv)]
        return subprocess.run(command, input=given or "", capture_output=True, text=True, check=False)

    def start(self, *argv: str, given: str = "") -> subprocess.Popen[bytes]:
        """Start a program on it, with a text on its standard input; its output is thrown away."""
        process = subprocess.Popen(
            network.enter(self.namespace, *argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin is not None  # noqa: S101  # it was asked for
        process.stdin.write(given.encode())
        process.stdin.close()
        return process

    def set_link(self, *, up: bool) -> None:
        """Its network card."""
        ip("-n", self.namespace, "link", "set", CARD, "up" if up else "down")

    @contextmanager
    def posing_as(self, other: ClientMachine) -> Iterator[None]:
        """This machine has the addresses of another one, which is off the network meanwhile."""
        other.set_link(up=False)
        self._take(other.address, other.mac)
        try:
            yield
        finally:
            self._take(self.address, self.mac)
            other.set_link(up=True)

    def _take(self, address: str, mac: str) -> None:
        ip("-n", self.namespace, "link", "set", CARD, "down")
        ip("-n", self.namespace, "addr", "flush", "dev", CARD)
        ip("-n", self.namespace, "link", "set", CARD, "address", mac)
        ip("-n", self.namespace, "addr", "add", f"{address}/{network.PREFIX_LENGTH}", "dev", CARD)
        ip("-n", self.namespace, "link", "set", CARD, "up")


def client_machine(lab: str, number: int, cleanup: ExitStack) -> ClientMachine:
    """A machine on the bridge `br0` of the lab of that name; `cleanup` removes it."""
    namespace = f"openqrm-{lab}-c{number}"
    made = ClientMachine(number, namespace, f"10.99.0.{10 + number}", f"52:54:00:00:00:{0x10 + number:02x}")
    ip("netns", "add", namespace)
    cleanup.callback(ip, "netns", "delete", namespace)
    bridge = network.lab_namespace(lab)
    ip("-n", bridge, "link", "add", f"client{number}", "type", "veth", "peer", "name", CARD, "netns", namespace)
    ip("-n", bridge, "link", "set", f"client{number}", "master", "br0", "up")
    ip("-n", namespace, "link", "set", CARD, "address", made.mac)
    ip("-n", namespace, "addr", "add", f"{made.address}/{network.PREFIX_LENGTH}", "dev", CARD)
    ip("-n", namespace, "link", "set", CARD, "up")
    ip("-n", namespace, "link", "set", "lo", "up")
    return made


def ip(*words: str) -> str:
    """ip(8); its output. subprocess.CalledProcessError."""
    command = ["ip", *words]
    return subprocess.run(command, stdin=subprocess.DEVNULL, check=True, capture_output=True, text=True).stdout
