"""A real Kea in a network namespace of its own, asked by a real DHCP client in another."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.entities import ENTITIES
from openqrm.domain.errors import CommandFailedError
from openqrm.domain.network import Address, AddressRange, Network, Nic
from openqrm.domain.resource import Resource
from openqrm.engine.plugins.process import Log, spawn
from openqrm.plugin_api.calls import CallContext, ServiceContext
from openqrm.plugin_api.hooks import HookContext
from openqrm.plugin_api.plugin import ServiceCommand
from openqrm.plugins.network.dhcpd import hooks, leases, service
from openqrm.plugins.network.dhcpd.configuration import placeholder
from openqrm.plugins.network.dhcpd.kea import Kea
from openqrm.testing import needs
from openqrm.testing.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from openqrm.engine.plugins.process import Child

pytestmark = pytest.mark.usefixtures("here")
SETTINGS = {"discovery_seconds": 120}
MAC = "52:54:00:98:00:01"


@pytest.fixture(scope="module")
def here() -> None:
    """What these tests need is on this machine."""
    needs.root_and("kea-dhcp4", "busybox", "ip", "setpriv")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL, capture_output=True)


@dataclass(frozen=True)
class Wire:
    """Server and client namespaces joined by a cable."""

    server: str
    client: str
    directory: Path

    def ask(self, *options: str, mac: str = MAC) -> dict[str, str]:
        """What a DHCP client gets; empty when it gets nothing."""
        ip("-n", self.client, "link", "set", "eth0", "address", mac)
        script = self.directory / "udhcpc.sh"
        script.write_text('#!/bin/sh\n[ "$1" = bound ] && env\nexit 0\n')
        script.chmod(0o755)
        client = ("ip", "netns", "exec", self.client, "busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-n")
        done = subprocess.run(
            [*client, "-t", "3", "-T", "1", "-s", str(script), *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    server, client = f"pl-s{os.getpid()}", f"pl-c{os.getpid()}"
    for name in (server, client):
        ip("netns", "add", name)
    try:
        ip("-n", server, "link", "add", "dhcp0", "type", "veth", "peer", "name", "eth0", "netns", client)
        ip("-n", server, "addr", "add", "10.98.0.1/24", "dev", "dhcp0")
        ip("-n", server, "link", "set", "dhcp0", "up")
        ip("-n", client, "link", "set", "eth0", "up")
        yield Wire(server, client, tmp_path)
    finally:
        for name in (server, client):
            ip("netns", "delete", name)


@dataclass
class Server:
    """A Kea that runs as the plug-in would run it."""

    wire: Wire
    database: MemoryDatabase
    context: ServiceContext
    child: Child | None = None

    async def start(self) -> None:
        command = await service.prepare(self.context)
        inside = ServiceCommand(
            ("ip", "netns", "exec", self.wire.server, *command.argv), command.environment, command.directory
        )
        self.child = await spawn(inside, self.wire.directory / "record", Log(self.wire.directory / "kea.log"))
        await service.ready(self.context)

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.stop()

    def call(self) -> CallContext:
        return CallContext(1, "step", 1, self.database.read, self.context.directory)

    def hook(self, reader: Any) -> HookContext:
        return HookContext(reader, SETTINGS, self.context.installation)

    async def ask(self, *options: str, mac: str = MAC) -> dict[str, str]:
        return await asyncio.to_thread(self.wire.ask, *options, mac=mac)

    async def run_hook(self, moment: str, resource: Resource) -> int:
        """Do what the resource hook plans, as the engine would; how many steps there were."""
        with self.database.read() as reader:
            steps = hooks.resource(self.hook(reader), moment, resource)
        for step in steps:
            assert step.kind == "call"
            function = getattr(leases, step.function.partition(":")[2])
            await function(self.call(), **step.arguments)
            assert step.verify is not None
            assert await getattr(leases, step.verify.partition(":")[2])(self.call(), **step.arguments)
        return len(steps)


def make_database(**changes: Any) -> MemoryDatabase:
    database = MemoryDatabase(ENTITIES)
    network = Network(
        name="lab",
        cidr="10.98.0.0/24",
        interface="dhcp0",
        gateway="10.98.0.254",
        dns=("10.98.0.1",),
        machines=AddressRange(first="10.98.0.10", last="10.98.0.19"),
        discovery=AddressRange(first="10.98.0.200", last="10.98.0.201"),
    )
    with database.write() as writer:
        writer.insert(network.model_copy(update=changes))
    return database


def add_machine(database: MemoryDatabase, mac: str, address: str) -> Resource:
    with database.write() as writer:
        resource = writer.insert(Resource(name=f"node-{mac.replace(':', '')}", mac=mac, address=address))
        nic = writer.insert(Nic(resource_id=resource.id, mac=mac, boot=True))
        network = writer.one(Network, name="lab")
        assert network is not None
        writer.insert(Address(network_id=network.id, address=address, nic_id=nic.id))
        return resource


@pytest.fixture
async def server(wire: Wire, tmp_path: Path) -> AsyncIterator[Server]:
    state = tmp_path / "state"
    directory = state / "plugins" / "dhcpd"
    directory.mkdir(parents=True)
    installation = {"state_dir": str(state), "address": "10.98.0.1", "boot_url": "http://10.98.0.1:8080"}
    database = make_database()
    running = Server(wire, database, ServiceContext(database.read, directory, SETTINGS, installation))
    await running.start()
    yield running
    await running.stop()


async def test_an_unknown_machine_borrows_a_discovery_address_with_router_and_dns(server: Server) -> None:
    answer = await server.ask()
    assert answer["ip"] in {"10.98.0.200", "10.98.0.201"}
    assert (answer["mask"], answer["lease"]) == ("24", "120")
    assert (answer["router"], answer["dns"]) == ("10.98.0.254", "10.98.0.1")


@pytest.mark.parametrize(
    ("options", "file"),
    [
        (("-x", "0x5d:0000"), "undionly.kpxe"),
        (("-x", "0x5d:0007"), "snponly.efi"),
        (("-x", "0x5d:0009"), "snponly.efi"),
        (("-x", "0x5d:0010", "-V", "HTTPClient:Arch:00016"), "http://10.98.0.1:8080/boot/loaders/snponly.efi"),
        (("-x", "0x5d:0000", "-x", "0x4d:69505845"), "http://10.98.0.1:8080/boot/ipxe"),
        (("-x", "0x5d:0007", "-x", "0xaf:B0010100"), "http://10.98.0.1:8080/boot/ipxe"),
    ],
)
async def test_each_firmware_gets_what_it_can_boot(server: Server, options: tuple[str, ...], file: str) -> None:
    answer = await server.ask("-O", "67", "-O", "66", "-O", "60", *options)
    assert answer["boot_file"] == file
    if not file.startswith("http"):
        assert answer["siaddr"] == "10.98.0.1"
    assert (answer.get("vendor") == "HTTPClient") == file.endswith("loaders/snponly.efi")


async def test_a_registered_machine_has_its_address_for_ever_whatever_id_its_client_sends(server: Server) -> None:
    assert (await server.ask())["ip"].startswith("10.98.0.20")
    resource = add_machine(server.database, MAC, "10.98.0.15")
    assert await server.run_hook("add", resource) == 1
    for options in ((), ("-C",), ("-x", "0x3d:01525400980001"), ("-x", "0x3d:00DEADBEEF")):
        answer = await server.ask(*options)
        assert (answer["ip"], answer["lease"]) == ("10.98.0.15", "4294967295")
    assert await server.run_hook("remove", resource) == 1
    assert (await server.ask())["ip"].startswith("10.98.0.20")


async def test_adding_and_removing_twice_is_like_once_and_a_later_owner_keeps_its_address(server: Server) -> None:
    host: dict[str, Any] = {"network_id": 1, "address": "10.98.0.15", "mac": MAC}
    await leases.add(server.call(), **host)
    await leases.add(server.call(), **host)
    assert await leases.is_added(server.call(), **host)
    other = host | {"mac": "52:54:00:98:00:02"}
    await leases.add(server.call(), **other)
    await leases.remove(server.call(), **host)
    assert await leases.is_added(server.call(), **other)
    assert await leases.is_removed(server.call(), **host)
    await leases.remove(server.call(), **other)
    await leases.remove(server.call(), **other)
    assert await leases.is_removed(server.call(), **other)


async def test_an_unknown_machine_never_gets_a_machine_address(server: Server) -> None:
    for number in (1, 2):
        assert (await server.ask(mac=f"52:54:00:98:00:a{number}"))["ip"].startswith("10.98.0.20")
    assert await server.ask("-r", "10.98.0.12", mac="52:54:00:98:00:a3") == {}, "discovery is full: it must get nothing"


async def test_a_restart_brings_back_machines_and_what_discovery_had_lent(server: Server) -> None:
    add_machine(server.database, MAC, "10.98.0.17")  # added while nobody told the server
    lent = (await server.ask(mac="52:54:00:98:00:a1"))["ip"]
    await server.stop()
    await server.start()
    assert (await server.ask())["ip"] == "10.98.0.17"
    assert (await server.ask(mac="52:54:00:98:00:a2"))["ip"] != lent
    assert (await server.ask(mac="52:54:00:98:00:a1"))["ip"] == lent


async def test_a_closed_box_made_by_hand_gets_its_fixed_address(server: Server) -> None:
    with server.database.write() as writer:
        box = writer.insert(Resource(name="printer", type="closed", mac=MAC, address="10.98.0.11", manual=True))
    assert await server.run_hook("add", box) == 1
    assert (await server.ask())["ip"] == "10.98.0.11"


async def test_a_changed_network_is_followed_without_a_restart(server: Server) -> None:
    assert server.child is not None
    pid = server.child.pid
    resource = add_machine(server.database, MAC, "10.98.0.15")
    with server.database.write() as writer:
        network = writer.one(Network, name="lab")
        assert network is not None
        writer.update(network, gateway="10.98.0.253", machines=AddressRange(first="10.98.0.10", last="10.98.0.60"))
    await follow(server)
    await follow(server)  # nothing has changed: nothing is done
    await server.run_hook("add", resource)
    answer = await server.ask()
    assert (answer["ip"], answer["router"]) == ("10.98.0.15", "10.98.0.253")
    assert await leases.is_added(server.call(), network_id=1, address="10.98.0.15", mac=MAC)
    await server.ask(mac="52:54:00:98:00:a1")
    await server.ask(mac="52:54:00:98:00:a2")
    assert await server.ask("-r", "10.98.0.55", mac="52:54:00:98:00:a3") == {}, "new machine addresses are held at once"
    assert server.child.pid == pid
    log = (server.wire.directory / "kea.log").read_text()
    assert log.count("Received command 'config-set'") == 1


async def follow(server: Server) -> None:
    await service.follow_networks(server.context, datetime.now(UTC))


async def test_a_large_range_takes_several_calls_and_keeps_who_came_meanwhile(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "BLOCK", 20)
    monkeypatch.setattr(service, "RESERVE_SECONDS", 0.0)
    first, last = "10.98.0.10", "10.98.0.99"
    with server.database.write() as writer:
        network = writer.one(Network, id=1)
        assert network is not None
        writer.update(network, machines=AddressRange(first=first, last=last))
        resource = writer.insert(Resource(name="early"))
        nic = writer.insert(Nic(resource_id=resource.id, mac="52:54:00:98:00:e1"))
        writer.insert(Address(network_id=1, address="10.98.0.45", nic_id=nic.id))
    await follow(server)
    progress = server.context.directory / service.PROGRESS
    assert json.loads(progress.read_text()) == {"lab": 20}
    # One that the database does not know yet, and one that comes while its block is being written.
    await leases.add(server.call(), network_id=1, address="10.98.0.46", mac="52:54:00:98:00:e2")
    looks = iter(({}, {"10.98.0.31": "52:54:00:98:00:e3"}))
    network_now = network.model_copy(update={"machines": AddressRange(first=first, last=last)})
    kea = Kea(server.context.directory / "control")
    await leases.reserve(kea, network_now, ["10.98.0.30", "10.98.0.31"], lambda: next(looks))
    for _ in range(10):
        await follow(server)
    assert not progress.exists()
    for address, mac in (("45", "e1"), ("46", "e2"), ("31", "e3")):
        call, at, card = server.call(), f"10.98.0.{address}", f"52:54:00:98:00:{mac}"
        assert await leases.is_added(call, network_id=1, address=at, mac=card)
    _, held = await kea.command("lease4-get", ip_address=last)
    assert held["hw-address"] == placeholder(last)


async def test_adding_a_machine_takes_under_50_ms_beside_10000_others(server: Server) -> None:
    await server.stop()
    database = make_database(
        cidr="10.98.0.0/17",
        gateway=None,
        machines=AddressRange(first="10.98.8.0", last="10.98.63.255"),
        discovery=AddressRange(first="10.98.1.0", last="10.98.1.255"),
    )
    with database.write() as writer:
        resource = writer.insert(Resource(name="many"))
        for number in range(10_000):
            mac = f"52:54:01:00:{number >> 8:02x}:{number & 255:02x}"
            nic = writer.insert(Nic(resource_id=resource.id, mac=mac))
            address = f"10.98.{8 + (number >> 8)}.{number & 255}"
            writer.insert(Address(network_id=1, address=address, nic_id=nic.id))
    server.database, server.context = database, replace(server.context, read=database.read)
    began = time.monotonic()
    await server.start()
    started = time.monotonic() - began
    times = []
    for number in range(200):
        began = time.monotonic()
        await leases.add(server.call(), network_id=1, address=f"10.98.60.{number}", mac=f"52:54:02:00:00:{number:02x}")
        times.append(time.monotonic() - began)
    times.sort()
    print(
        f"start with 10,000 machines {started:.2f} s; "
        f"add: median {times[100] * 1000:.2f} ms, worst {times[-1] * 1000:.2f} ms"
    )
    assert times[190] < 0.05
    assert (await server.ask(mac="52:54:01:00:27:0f"))["ip"] == "10.98.47.15"


async def test_without_a_server_the_step_fails_with_a_remedy(server: Server) -> None:
    await server.stop()
    with pytest.raises(Exception, match="does not answer") as failed:
        await leases.add(server.call(), network_id=1, address="10.98.0.15", mac=MAC)
    assert getattr(failed.value, "code", "") == "unreachable"


async def test_another_dhcp_server_on_the_interface_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    await server.stop()
    monkeypatch.setattr(service, "READY_SECONDS", 1)
    code = "import socket; s = socket.socket(type=2); s.bind(('10.98.0.1', 67)); print(1, flush=True); input()"
    other = await asyncio.create_subprocess_exec(
        *("ip", "netns", "exec", server.wire.server, sys.executable, "-c", code),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert other.stdout is not None
    await other.stdout.readline()
    try:
        with pytest.raises(CommandFailedError, match="another DHCP server"):
            await server.start()
    finally:
        other.kill()
        await other.wait()


SOLICIT = """
import socket, struct, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86DD)); s.bind(("eth0", 0x86DD)); s.settimeout(0.2)
mac = s.getsockname()[4]
addresses = socket.inet_pton(socket.AF_INET6, sys.argv[1]) + socket.inet_pton(socket.AF_INET6, "ff02::2")
packet = struct.pack("!IHBB", 6 << 28, 8, 58, 255) + addresses + struct.pack("!BBHI", 133, 0, 0, 0)
for _ in range(25):
    s.send(bytes.fromhex("333300000002") + mac + bytes.fromhex("86dd") + packet)
    try:
        while True:
            frame = s.recv(2048)
            if frame[20] == 58 and frame[54] == 134:
                print(frame[:6] == mac, struct.unpack("!H", frame[60:62])[0], len(frame) - 54)
                raise SystemExit
    except TimeoutError:
        pass
"""


@pytest.mark.parametrize("source", ["fe80::5054:ff:fe98:1", "::"])
async def test_a_router_solicitation_is_answered_with_no_router_on_the_wire(server: Server, source: str) -> None:
    command = await service.prepare_no_router(server.context)
    inside = ServiceCommand(("ip", "netns", "exec", server.wire.server, *command.argv))
    child = await spawn(inside, server.wire.directory / "ra", Log(server.wire.directory / "ra.log"))
    try:
        asking = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", server.wire.client, sys.executable, "-c", SOLICIT, source),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await asyncio.wait_for(asking.communicate(), 20)
    finally:
        await child.stop()
    assert said.decode().split() == ["True", "0", "16"], "to the asker alone, lifetime 0, no options"
