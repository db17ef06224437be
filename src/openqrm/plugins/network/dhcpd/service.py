"""Running Kea: its files before each start, its networks while it runs."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import CommandFailedError, MissingDependencyError, OpenqrmError, UnreachableError
from openqrm.domain.network import Network
from openqrm.plugin_api.plugin import ServiceCommand
from openqrm.plugins.network.dhcpd.configuration import HOOKS, addresses, configuration, served
from openqrm.plugins.network.dhcpd.kea import Kea
from openqrm.plugins.network.dhcpd.leases import hosts, lease_file, living, macs, reserve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from openqrm.plugin_api.calls import ServiceContext

CONFIGURATION = "kea-dhcp4.conf"
OLD_LEASES = ("leases.csv.completed", "leases.csv.2", "leases.csv.1", "leases.csv")
"""Kea's lease files, oldest first; the first three exist only while or after it cleans up (Kea ARM, memfile)."""
READY_SECONDS = 10
PROGRESS = "reserving.json"
BLOCK = 250
"""Addresses reserved between two looks at the database."""
RESERVE_SECONDS = 8.0
"""How long one call of the monitor hook goes on; it is called every 10 s and ended after 30 s."""


async def prepare(context: ServiceContext) -> ServiceCommand:
    """Write configuration and leases from the database; MissingDependencyError without Kea."""
    server = shutil.which("kea-dhcp4") or shutil.which("kea-dhcp4", path="/usr/sbin")
    hook = _hook()
    if server is None or hook is None:
        raise MissingDependencyError(
            "the DHCP server Kea is not installed", remedy="apt-get install -y --no-install-recommends kea-dhcp4-server"
        )
    await asyncio.to_thread(_write_files, context, hook)
    # What an earlier Kea left was ended; its file may name a process that is still to be reaped, or another one by now.
    for pid_file in context.directory.glob("kea-dhcp4.*.pid"):
        pid_file.unlink(missing_ok=True)
    own = str(context.directory)
    environment = {"KEA_PIDFILE_DIR": own, "KEA_LOCKFILE_DIR": own}
    return ServiceCommand((server, "-c", str(context.directory / CONFIGURATION)), environment, own)


async def prepare_no_router(context: ServiceContext) -> ServiceCommand:
    """The process that spares iPXE its wait for an IPv6 router; see `advertise`."""
    module = "openqrm.plugins.network.dhcpd.advertise"
    return ServiceCommand((sys.executable, "-m", module, str(context.directory / CONFIGURATION)))


async def ready(context: ServiceContext) -> None:
    """Wait until Kea answers and listens; UnreachableError, CommandFailedError when it can listen nowhere.

    A part of its interfaces is enough: it goes on trying to open the others.
    """
    kea = Kea(context.directory / "control", seconds=2)
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            _, status = await kea.command("status-get")
            sockets = status.get("sockets", {})
            if sockets.get("status", "ready") == "ready":
                return
            fault: OpenqrmError = CommandFailedError(
                f"the DHCP server cannot listen: {'; '.join(sockets.get('errors', ()))}",
                remedy="end another DHCP server on this machine (systemctl disable --now kea-dhcp4-server), "
                "or name an existing interface in the network",
            )
        except UnreachableError as error:
            sockets, fault = {}, error
        if time.monotonic() > deadline:
            if 0 < len(sockets.get("errors", ())) < await asyncio.to_thread(_interfaces, context):
                return
            raise fault
        await asyncio.sleep(0.1)


def _interfaces(context: ServiceContext) -> int:
    with context.read() as reader:
        return len({one.interface for one in served(reader.find(Network))})


async def follow_networks(context: ServiceContext, now: datetime) -> None:
    """Bring a running Kea up to date when networks or settings changed, without a restart. Called every 10 s.

    A large new range takes several calls: how far it is stands in a file.
    """
    del now
    directory = context.directory
    file, hook = directory / CONFIGURATION, _hook()
    if not file.exists() or hook is None or not (directory / "control").exists():
        return
    with context.read() as reader:
        networks = served(reader.find(Network))
    wanted = configuration(networks, directory, context.settings, context.installation, hook)
    present = json.loads(file.read_text(encoding="utf-8"))
    kea, progress = Kea(directory / "control"), directory / PROGRESS
    if wanted != present:
        await kea.command("config-set", **wanted)
        before, after = _ranges(present), _ranges(wanted)
        changed = {one.name: 0 for one in networks if before.get(one.name) != after[one.name]}
        _replace(progress, json.dumps(_progress(progress) | changed))
        _replace(file, json.dumps(wanted, indent=1))
    if progress.exists():
        await _reserve(context, kea, {one.name: one for one in networks}, progress)


async def _reserve(context: ServiceContext, kea: Kea, networks: Mapping[str, Network], progress: Path) -> None:
    """Go on with the addresses that were not reserved yet, for a while."""
    deadline = time.monotonic() + RESERVE_SECONDS
    left = _progress(progress)
    while left:
        name, place = next(iter(left.items()))
        network = networks.get(name)
        block = addresses(network.machines)[place : place + BLOCK] if network is not None else []
        if network is None or not block:
            del left[name]
        else:
            await reserve(kea, network, block, partial(_macs, context, network, block))
            left[name] = place + len(block)
        _replace(progress, json.dumps(left))
        if time.monotonic() > deadline:
            return
    progress.unlink()  # noqa: ASYNC240  # a hook has a thread and a loop of its own


def _macs(context: ServiceContext, network: Network, block: list[str]) -> dict[str, str]:
    with context.read() as reader:
        return macs(reader, network, block)


def _progress(file: Path) -> dict[str, int]:
    """How many addresses of each network's machine range are reserved, for those that are under way."""
    found: dict[str, int] = json.loads(_text(file) or "{}")
    return found


def _ranges(config: Mapping[str, Any]) -> dict[str, Any]:
    return {one["name"]: one["subnet4"][1]["pools"] for one in config["Dhcp4"]["shared-networks"]}


def _write_files(context: ServiceContext, hook: str) -> None:
    directory, now = context.directory, int(time.time())
    with context.read() as reader:
        networks = served(reader.find(Network))
        known = hosts(reader)
    kept = living((_text(directory / name) for name in OLD_LEASES), now)
    _replace(directory / "leases.csv", lease_file(networks, known, kept, now))
    for name in OLD_LEASES[:-1]:
        (directory / name).unlink(missing_ok=True)
    config = configuration(networks, directory, context.settings, context.installation, hook)
    _replace(directory / CONFIGURATION, json.dumps(config, indent=1))
    for name in ("control", "control.lock", PROGRESS):  # the file of leases has every address
        (directory / name).unlink(missing_ok=True)


def _hook() -> str | None:
    return next((path for path in HOOKS if Path(path).exists()), None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
