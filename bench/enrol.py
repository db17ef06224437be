"""Machines that nobody knows register: a new TLS connection each, as machines do it."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import TYPE_CHECKING, Any

from bench.installation import Site, World, running
from bench.lists import at
from bench.stock import add_network
from bench.wire import exchange, post

if TYPE_CHECKING:
    import ssl

MACHINES = 1_000
AT_ONCE = 32


def report(number: int) -> bytes:
    """What a machine says of itself."""
    mac = f"52:54:09:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    said = {
        "mac": mac,
        "boot_id": str(uuid.uuid4()),
        "stage": "initramfs",
        "arch": "x86_64",
        "kernel": "6.1.0-bench",
        "firmware": "efi",
        "memory_mb": 65536,
        "cpus": 32,
        "cpu_model": "Bench",
        "nics": [
            {"name": "eth0", "mac": mac, "driver": "e1000e", "speed_mbit": 1000, "link": True},
            {"name": "eth1", "mac": mac.replace("52:54:09", "52:54:0a"), "driver": "e1000e"},
        ],
        "disks": [{"name": f"sd{letter}", "size_mb": 960197, "model": "Disk", "rotational": False} for letter in "ab"],
        "dmi": {"vendor": "Bench", "product": "1U", "serial": f"S{number}", "uuid": str(uuid.uuid4())},
        "ssh_host_keys": [f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{number:043d}"],
    }
    return json.dumps(said).encode()


async def enrol(site: Site) -> tuple[float, list[float], int]:
    """All machines, some at once: seconds, milliseconds of each, and how many had to try again."""
    waiting = iter(range(1, MACHINES + 1))
    times: list[float] = []
    repeated = 0
    tls: ssl.SSLContext = site.tls

    async def machines() -> None:
        nonlocal repeated
        for number in waiting:
            request = post("/node/v1/register", report(number))
            began = time.perf_counter()
            status, body = await exchange(site.settings.port, tls, request)
            while status == 503:
                repeated += 1
                status, body = await exchange(site.settings.port, tls, request)
            if status != 200 or b"ADDRESS='10.97." not in body:
                raise RuntimeError(f"{status} {body!r}")
            times.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(machines() for _ in range(AT_ONCE)))
    return time.perf_counter() - began, sorted(times), repeated


def run(world: World) -> dict[str, Any]:
    """`enrol_per_s`: machines a second that got a name, a token and an address of their own."""
    with running(world, add_network) as site:
        cpu = site.cpu_seconds()
        seconds, times, repeated = asyncio.run(enrol(site))
        cpu = site.cpu_seconds() - cpu
        known = site.everything("resources", manual="false")
    if len({each["address"] for each in known}) != MACHINES or len(known) != MACHINES:
        raise RuntimeError(f"{len(known)} machines are known, {len({each['address'] for each in known})} addresses")
    return {
        "enrol_per_s": round(MACHINES / seconds, 1),
        "details": {
            "machines": MACHINES,
            "at_once": AT_ONCE,
            "tried_again": repeated,
            "p50_ms": at(times, 0.5),
            "p95_ms": at(times, 0.95),
            "controller_cpu_share": round(cpu / seconds, 2),
        },
    }
