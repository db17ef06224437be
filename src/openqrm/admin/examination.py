"""What `openqrm doctor` looks at: one function for each subject, each returns what is wrong."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from openqrm.domain.errors import OpenqrmError
from openqrm.domain.kernel import Kernel
from openqrm.domain.network import Network
from openqrm.domain.plugin_state import PluginPhase, PluginState
from openqrm.domain.storage import Storage
from openqrm.engine.plugins.catalogue import absent, install, needed, settings_of
from openqrm.engine.plugins.supervisor import STATUS_FILE, ServiceState
from openqrm.store import migrations
from openqrm.store.database import SqlDatabase
from openqrm.store.secrets import Keyring, key_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from openqrm.engine.plugins.catalogue import Catalogue
    from openqrm.plugin_api.plugin import Plugin
    from openqrm.settings import Settings

LOW_DISK_MB = 500
SETUP = "openqrm setup"
RUN = "openqrm controller run"


@dataclass(frozen=True)
class Fault:
    """Something that is wrong."""

    grade: Literal["error", "warning"]
    text: str
    remedy: str = ""


Subject = tuple[str, "list[Fault]", str]
"""What was looked at, what is wrong with it, and what to say when nothing is; empty: nothing."""


@dataclass(frozen=True)
class Stored:
    """What the database says. `fault` when it says nothing; `plugins` are states by plug-in."""

    fault: Fault | None = None
    plugins: dict[str, PluginState] = field(default_factory=dict)
    networks: Sequence[Network] = ()
    storages: Sequence[Storage] = ()
    bootable: bool = False


def examine(settings: Settings, catalogue: Catalogue) -> Iterator[Subject]:
    """Every subject in turn."""
    stored = read(settings)
    running = controller_runs(settings)
    yield "settings", [], f"state in {settings.state_dir}, {settings.url}"
    yield "state directory", state_directory(settings), ""
    yield "database", [stored.fault] if stored.fault else [], "answers and is up to date"
    yield "controller", controller(settings, running=running), "runs"
    yield "address", address(settings), f"{settings.address} is this machine's"
    for broken in catalogue.broken:
        text = f"is left out: {broken.reason} ({broken.origin})"
        yield f"plug-in {broken.name}", [Fault("error", text, f"mend or remove {broken.origin}")], ""
    for plugin in catalogue.plugins:
        row = stored.plugins.get(plugin.name)
        yield f"plug-in {plugin.name}", plugin_faults(plugin, row, stored), _state(plugin, row)
    yield from _left_over(catalogue, stored)
    yield "services", services(settings, catalogue, stored, running=running), ""
    if not stored.fault:
        yield "networks", networks(stored), ""
        yield "kernel", kernel(stored), ""


def read(settings: Settings) -> Stored:
    """What the database says, without making one that is not there."""
    if not settings.state_dir.is_dir() or not key_file(settings.state_dir).exists():
        return Stored(Fault("error", f"nothing is set up in {settings.state_dir}", SETUP))
    try:
        keyring = Keyring.load(key_file(settings.state_dir))
        if settings.database.startswith("sqlite:///") and not Path(settings.database[len("sqlite:///") :]).exists():
            return Stored(Fault("error", f"there is no {settings.database}", SETUP))
        database = SqlDatabase.open(settings.database, key=keyring)
    except (OpenqrmError, OSError) as error:
        return Stored(_fault("error", error))
    try:
        return _contents(database)
    except OpenqrmError as error:
        return Stored(_fault("error", error, "start the database server, or mend `database_url`"))
    finally:
        database.close()


def _contents(database: SqlDatabase) -> Stored:
    present, newest = migrations.current(database), migrations.head()
    if present != newest:
        text = f"its tables are at {present or 'nothing'}, the program's at {newest}"
        return Stored(Fault("error", text, "openqrm database upgrade"))
    with database.read() as reader:
        return Stored(
            plugins={row.name: row for row in reader.find(PluginState)},
            networks=reader.find(Network),
            storages=reader.find(Storage),
            bootable=bool(reader.count(Kernel, default=True, ready=True)),
        )


def state_directory(settings: Settings) -> list[Fault]:
    """It can be written and has room."""
    directory = settings.state_dir
    if not directory.is_dir():
        return [Fault("error", f"there is no {directory}", SETUP)]
    found = []
    if not os.access(directory, os.W_OK):
        found.append(Fault("error", f"{directory} cannot be written by this user", "run as the controller's user"))
    if directory.stat().st_mode & 0o077:
        found.append(Fault("warning", f"{directory} is open to others", f"chmod 700 {directory}"))
    free = shutil.disk_usage(directory).free >> 20
    if free < LOW_DISK_MB:
        found.append(Fault("error", f"only {free} MB are free at {directory}", "free some space"))
    return found


def controller_runs(settings: Settings) -> bool:
    """Whether something answers at the API's socket or port."""
    if settings.socket is not None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(2)
            probe.connect(str(settings.socket))
            return True
    with contextlib.suppress(OSError), socket.create_connection((settings.address, settings.port), timeout=2):
        return True
    return False


def controller(settings: Settings, *, running: bool) -> list[Fault]:
    """It runs, or could: root, tools, free ports."""
    found = []
    if not running:
        found.append(Fault("warning", "does not run", RUN))
        for port in (settings.port, settings.boot_port):
            if _taken(settings.address, port):
                text = f"another program has port {port} of {settings.address}"
                found.append(Fault("error", text, "end it, or set `port` or `boot_port`"))
    if shutil.which("setpriv") is None:
        found.append(
            Fault("error", "setpriv is missing: services of plug-ins cannot run", "apt-get install util-linux")
        )
    return found


def _taken(host: str, port: int) -> bool:
    return _bind(host, port) == errno.EADDRINUSE


def _bind(host: str, port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno or errno.EINVAL
    return 0


def address(settings: Settings) -> list[Fault]:
    """Machines can reach it."""
    if _bind(settings.address, 0):
        return [Fault("error", f"no interface of this machine has {settings.address}", "set `address`, or add it")]
    if settings.address.startswith("127."):
        text = f"machines cannot reach {settings.address}: nothing can boot from this server"
        return [Fault("warning", text, "set `address` to this server's address in the management network")]
    return []


def plugin_faults(plugin: Plugin, row: PluginState | None, stored: Stored) -> list[Fault]:
    """What an enabled plug-in lacks. A disabled one lacks nothing."""
    if row is None or row.state == PluginPhase.DISABLED:
        return []
    found = []
    missing = absent(needed(plugin))
    if missing:
        names = ", ".join(one.command for one in missing)
        found.append(Fault("error", f"is {row.state} but {names} is missing", install(missing)))
    for name in plugin.requires.plugins:
        other = stored.plugins.get(name)
        if other is None or other.state == PluginPhase.DISABLED:
            found.append(Fault("error", f"needs plug-in {name}, which is disabled", f"openqrm plugin init {name}"))
        elif row.state == PluginPhase.STARTED and other.state != PluginPhase.STARTED:
            found.append(Fault("error", f"needs plug-in {name}, which is not started", f"openqrm plugin start {name}"))
    try:
        settings_of(plugin, row.settings)
    except OpenqrmError as error:
        found.append(_fault("error", error))
    return found


def _state(plugin: Plugin, row: PluginState | None) -> str:
    """Its state, and what it would need to be enabled."""
    state = str(row.state) if row else str(PluginPhase.DISABLED)
    missing = absent(needed(plugin)) if state == PluginPhase.DISABLED else ()
    return f"{state}; before it can be enabled: {install(missing)}" if missing else state


def _left_over(catalogue: Catalogue, stored: Stored) -> Iterator[Subject]:
    """Plug-ins and storage types that are used and not there."""
    known = {*catalogue.declared.plugins, *(one.name for one in catalogue.broken)}
    for name, row in stored.plugins.items():
        if name not in known and row.state != PluginPhase.DISABLED:
            yield f"plug-in {name}", [Fault("error", f"is {row.state} but not installed", "install its package")], ""
    for storage in stored.storages:
        entry = catalogue.declared.types.get(storage.type)
        needed = [one.name for one in catalogue.declared.providers(storage.type)] if entry else []
        rows = [stored.plugins.get(name) for name in needed]
        if not all(row is not None and row.state != PluginPhase.DISABLED for row in rows) or entry is None:
            text = f"its type {storage.type} is not enabled: its volumes cannot be used"
            remedy = f"openqrm plugin init {' '.join(needed)}" if entry else "install the plug-in that brings the type"
            yield f"storage {storage.name}", [Fault("error", text, remedy)], ""


def services(settings: Settings, catalogue: Catalogue, stored: Stored, *, running: bool) -> list[Fault]:
    """Services of started plug-ins run; nothing is expected while the controller does not."""
    if not running:
        return []
    try:
        entries = json.loads((settings.state_dir / "plugins" / STATUS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        entries = []
    states = {(one["plugin"], one["service"]): one for one in entries}
    found = []
    for plugin in catalogue.plugins:
        row = stored.plugins.get(plugin.name)
        for service in plugin.services if row and row.state == PluginPhase.STARTED else ():
            one = states.get((plugin.name, service.name), {})
            if one.get("state") != ServiceState.RUNNING:
                text = f"{service.name} of plug-in {plugin.name} does not run: {one.get('error') or 'not started yet'}"
                found.append(
                    Fault("error", text, one.get("remedy") or f"see {one.get('log', 'the log of the controller')}")
                )
    return found


def networks(stored: Stored) -> list[Fault]:
    """Interfaces of networks exist, and DHCP has something to serve."""
    found = []
    for one in stored.networks:
        if one.interface and not Path("/sys/class/net", one.interface).exists():
            text = f"network {one.name}: this machine has no interface {one.interface}"
            found.append(Fault("error", text, f"openqrm network update {one.name} --interface NAME"))
    row = stored.plugins.get("dhcpd")
    if row and row.state == PluginPhase.STARTED and not any(one.interface for one in stored.networks):
        text = "dhcpd is started, but no network names an interface to serve"
        found.append(
            Fault("warning", text, "openqrm network create …, or openqrm network update NAME --interface NAME")
        )
    return found


def kernel(stored: Stored) -> list[Fault]:
    """Machines have something to boot."""
    if stored.bootable:
        return []
    return [Fault("warning", "no default kernel is ready: machines cannot become idle", "openqrm kernel add --help")]


def _fault(grade: Literal["error", "warning"], error: Exception, remedy: str = "") -> Fault:
    if isinstance(error, OpenqrmError):
        return Fault(grade, error.detail, error.remedy or remedy)
    return Fault(grade, str(error), remedy)
