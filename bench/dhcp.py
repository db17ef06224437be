"""An address for one more machine in a running Kea that has 10,000, in a network namespace of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

from bench.installation import World, settings_for
from bench.lists import at
from openqrm.admin.setup import prepare
from openqrm.domain.network import Address, AddressRange, Network, Nic
from openqrm.domain.resource import SERVER_ID
from openqrm.engine.plugins.process import Log, spawn
from openqrm.plugin_api.calls import CallContext, ServiceContext
from openqrm.plugin_api.plugin import ServiceCommand
from openqrm.plugins.network.dhcpd import leases, service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openqrm.store.database import SqlDatabase

MACHINES = 10_000
ADDED = 300


def fill(database: SqlDatabase) -> int:
    """A network with 10,000 machines in it; its id."""
    with database.write() as writer:
        network = writer.insert(
            Network(
                name="bench",
                cidr="10.98.0.0/17",
                interface="dhcp0",
                machines=AddressRange(first="10.98.8.0", last="10.98.63.255"),
                discovery=AddressRange(first="10.98.1.0", last="10.98.1.255"),
            )
        )
        for number in range(MACHINES):
            mac = f"52:54:01:00:{number >> 8:02x}:{number & 255:02x}"
            nic = writer.insert(Nic(resource_id=SERVER_ID, mac=mac))
            address = f"10.98.{8 + (number >> 8)}.{number & 255}"
            writer.insert(Address(network_id=network.id, address=address, nic_id=nic.id))
        return network.id


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """A network namespace with the interface that Kea serves; removed with the block."""
    name = f"oq-bench-{os.getpid()}"
    _ip("netns", "add", name)
    try:
        _ip("-n", name, "link", "add", "dhcp0", "type", "veth", "peer", "name", "far0")
        _ip("-n", name, "addr", "add", "10.98.0.1/17", "dev", "dhcp0")
        for interface in ("dhcp0", "far0"):
            _ip("-n", name, "link", "set", interface, "up")
        yield name
    finally:
        _ip("netns", "delete", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL, capture_output=True)


async def add_all(world: World, database: SqlDatabase, network_id: int, inside: str) -> tuple[float, list[float]]:
    """Start Kea as the plug-in's service does, then add machines by its step; seconds to start, milliseconds each."""
    directory = world.directory / "state" / "plugins" / "dhcpd"
    directory.mkdir(parents=True)
    installation = {"state_dir": str(world.directory / "state"), "address": "10.98.0.1", "boot_url": "http://10.98.0.1"}
    context = ServiceContext(database.read, directory, {"discovery_seconds": 120}, installation)
    began = time.perf_counter()
    command = await service.prepare(context)
    argv = ("ip", "netns", "exec", inside, *command.argv)
    child = await spawn(
        ServiceCommand(argv, command.environment, command.directory), directory / "record", Log(directory / "kea.log")
    )
    try:
        await service.ready(context)
        started = time.perf_counter() - began
        call = CallContext(1, "step", 1, database.read, directory)
        times = []
        for number in range(ADDED):
            host = {
                "address": f"10.98.{60 + number // 250}.{number % 250}",
                "mac": f"52:54:02:00:01:{number % 256:02x}",
            }
            began = time.perf_counter()
            await leases.add(call, network_id=network_id, **host)
            times.append((time.perf_counter() - began) * 1000)
            assert await leases.is_added(call, network_id=network_id, **host)
        return started, sorted(times)
    finally:
        await child.stop()


def run(world: World) -> dict[str, Any]:
    """`dhcp_add_at_10k_ms`: the 95th percentile of adding one; needs root and Kea."""
    installation = prepare(settings_for(world))
    database = installation.database
    try:
        network_id = fill(database)
        with namespace() as inside:
            started, times = asyncio.run(add_all(world, database, network_id, inside))
    finally:
        database.close()
    return {
        "dhcp_add_at_10k_ms": at(times, 0.95),
        "details": {
            "added": ADDED,
            "p50_ms": at(times, 0.5),
            "worst_ms": round(times[-1], 2),
            "start_with_10000_s": round(started, 2),
        },
    }
