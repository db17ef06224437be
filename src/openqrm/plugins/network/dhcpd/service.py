"""Running Kea: its files before each start, its networks while it runs."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import CommandFailedError, MissingDependencyError, OpenqrmError, UnreachableError
from openqrm.domain.network import Network
from openqrm.plugin_api.plugin import ServiceCommand
from openqrm.plugins.network.dhcpd.configuration import HOOKS, configuration, served
from openqrm.plugins.network.dhcpd.kea import Kea
from openqrm.plugins.network.dhcpd.leases import hosts, lease_file, living, reserve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from openqrm.plugin_api.calls import ServiceContext
    from openqrm.plugin_api.hooks import HookContext

CONFIGURATION = "kea-dhcp4.conf"
OLD_LEASES = ("leases.csv.completed", "leases.csv.2", "leases.csv.1", "leases.csv")
"""Kea's lease files, oldest first; the first three exist only while or after it cleans up (Kea ARM, memfile)."""
READY_SECONDS = 10


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


async def follow_networks(context: HookContext, now: datetime) -> None:
    """Bring a running Kea up to date when networks or settings changed, without a restart. Called every 10 s."""
    del now
    directory = Path(context.installation["state_dir"]) / "plugins" / "dhcpd"
    file, hook = directory / CONFIGURATION, _hook()
    if not file.exists() or hook is None or not (directory / "control").exists():
        return
    networks = served(context.read.find(Network))
    wanted = configuration(networks, directory, context.settings, context.installation, hook)
    present = json.loads(file.read_text(encoding="utf-8"))
    if wanted == present:
        return
    known = hosts(context.read)
    kea = Kea(directory / "control")
    await kea.command("config-set", **wanted)
    before = _ranges(present)
    for network in networks:
        if before.get(network.name) != _ranges(wanted)[network.name]:
            await reserve(kea, network, known)
    _replace(file, json.dumps(wanted, indent=1))


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
    for name in ("control", "control.lock"):
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
