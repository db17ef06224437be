"""Enabling, starting, stopping, configuring and uninstalling plug-ins."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from openqrm.domain.entities import ENTITIES
from openqrm.domain.errors import CommandFailedError, ConflictError
from openqrm.domain.event import Severity
from openqrm.domain.model import Attr
from openqrm.domain.plugin_state import PluginPhase, PluginState
from openqrm.domain.storage import Storage
from openqrm.domain.user import UserRole
from openqrm.engine.plugins.catalogue import Catalogue, defaults, discover, settings_of
from openqrm.engine.plugins.entities import entity_fault
from openqrm.engine.plugins.supervisor import STATUS_FILE, ServiceState
from openqrm.operations import states
from openqrm.operations.registry import CORE_OPERATIONS, check
from openqrm.plugin_api.loading import load
from openqrm.plugin_api.operation import Arguments, Operation, Phase, needs
from openqrm.plugin_api.steps import Call as CallStep
from openqrm.plugin_api.steps import Change, Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.operations.pipeline import CoreCall
    from openqrm.plugin_api.calls import CallContext
    from openqrm.plugin_api.operation import Call, PlanContext
    from openqrm.plugin_api.plugin import Plugin
    from openqrm.plugin_api.records import Reader, Writer

_HERE = "openqrm.operations.core_plugins"
SERVICE_SECONDS = 60
"""How long services may take to come up, or to end, before the operation fails."""
_LOOK_SECONDS = 0.2


class ConfigureArguments(Arguments):
    """Settings to change; the others stay as they are. `null` gives a setting its default again."""

    settings: Annotated[dict[str, Any], Field(max_length=200), Attr("Settings", help="fields the plug-in declares")] = (
        Field(default_factory=dict)
    )


class UninstallArguments(Arguments):
    """Data is kept unless its removal is asked for: enabling the plug-in again finds it."""

    drop_data: Annotated[bool, Attr("Drop data", help="remove the plug-in's tables and all that is in them")] = False


@cache
def installed() -> Catalogue:
    """What is installed on this server, looked up once. Plug-ins whose operations or entities clash are left out."""
    return without_clashes(discover())


def without_clashes(catalogue: Catalogue) -> Catalogue:
    """The catalogue without plug-ins that declare an operation or entity wrongly, or one that others have."""
    taken = {one.name: "the core" for reference in CORE_OPERATIONS for one in load(reference)}
    entities = dict(ENTITIES)
    reasons: dict[str, str] = {}
    for plugin in catalogue.plugins:
        reason = _clash(plugin.operations, taken) or entity_fault(plugin, entities)
        if reason:
            reasons[plugin.name] = reason
        else:
            taken |= {one.name: plugin.name for one in plugin.operations}
            entities |= {record.entity.name: record for record in plugin.entities}
    return catalogue.without(reasons) if reasons else catalogue


def _clash(operations: Sequence[Operation], taken: dict[str, str]) -> str | None:
    names: set[str] = set()
    for one in operations:
        if one.name in taken or one.name in names:
            return f"operation {one.name} is already declared by {taken.get(one.name, 'itself')}"
        names.add(one.name)
        try:
            check(one)
        except ValueError as error:
            return str(error)
    return None


def init(writer: Writer, call: CoreCall) -> PluginState:
    """Enable a plug-in: what it needs is there, its settings and tables are made; MissingDependencyError."""
    row, plugin = _target(call)
    catalogue = installed()
    catalogue.check_before(plugin, writer, PluginPhase.ENABLED)
    catalogue.check_commands(plugin)
    settings = settings_of(plugin, row.settings)
    row = writer.update(row, settings=settings.model_dump(mode="json"))
    row = states.apply(writer, row, "state", "init")
    if plugin.entities:
        call.tables.make(writer, plugin)
    if plugin.init is not None:
        load(plugin.init)(writer, settings)
    return row


def uninstall(writer: Writer, call: CoreCall) -> PluginState:
    """Disable a plug-in and drop its settings, and its tables when asked; ConflictError while something uses it."""
    row, plugin = _target(call)
    installed().check_after(plugin, writer, PluginPhase.ENABLED)
    declared = installed().declared
    kinds = [kind for kind in declared.types if plugin.name in {one.name for one in declared.providers(kind)}]
    users = writer.find(Storage, type__in=kinds) if kinds else ()
    if users:
        names = ", ".join(storage.name for storage in users[:10])
        raise ConflictError(f"storage {names} uses plug-in {plugin.name}", remedy="remove these storages first")
    if plugin.uninstall is not None:
        load(plugin.uninstall)(writer, settings_of(plugin, row.settings))
    if plugin.entities and call.arguments.drop_data:
        call.tables.drop(writer, plugin)
    row = states.apply(writer, row, "state", "uninstall")
    return writer.update(row, settings=defaults(plugin))


def configure(writer: Writer, call: Call) -> PluginState:
    """Change a plug-in's settings; its services are started again with them. InvalidError names the field."""
    row, plugin = _target(call)
    changes: dict[str, Any] = call.arguments.settings
    merged = {key: value for key, value in (row.settings | changes).items() if value is not None}
    settings = settings_of(plugin, merged).model_dump(mode="json")
    writer.event(
        f"settings of plug-in {plugin.name} changed: {', '.join(sorted(changes)) or 'none'}",
        severity=Severity.NOTICE,
        source="plugins",
        about=row,
    )
    return writer.update(row, settings=settings)


def admit_start(reader: Reader, call: Call) -> Plan:
    """Refused at once while something it needs is missing; MissingDependencyError."""
    row, plugin = _target(call)
    installed().check_before(plugin, reader, PluginPhase.STARTED)
    installed().check_commands(plugin)
    return Plan(steps=(_apply(row, "start", "stop"),))


def admit_stop(reader: Reader, call: Call) -> Plan:
    """Refused at once while a started plug-in needs it; ConflictError."""
    row, plugin = _target(call)
    installed().check_after(plugin, reader, PluginPhase.STARTED)
    return Plan(steps=(_apply(row, "stop", "start"),))


def plan_start(context: PlanContext) -> Plan:
    """Wait until the services are up, so that a wrong setting is this operation's failure."""
    return _services(context, "up", "services_up")


def plan_stop(context: PlanContext) -> Plan:
    """Wait until the services have ended."""
    return _services(context, "down", "services_down")


async def services_up(context: CallContext, *, plugin: str, services: list[str]) -> dict[str, Any]:
    """Wait for services to run; CommandFailedError with what one said when it fails."""
    while True:
        status = _status(context, plugin)
        for name in services:
            one = status.get(name, {})
            if one.get("state") == ServiceState.WAITING:
                raise CommandFailedError(
                    f"service {name} of plug-in {plugin} does not run",
                    output=str(one.get("error", "")),
                    remedy=one.get("remedy") or f"see {one.get('log')}",
                )
        if all(status.get(name, {}).get("state") == ServiceState.RUNNING for name in services):
            return {"services": services}
        await asyncio.sleep(_LOOK_SECONDS)


async def services_down(context: CallContext, *, plugin: str, services: list[str]) -> dict[str, Any]:
    """Wait until no service of the plug-in is left."""
    while True:
        if not _status(context, plugin):
            return {"services": services}
        await asyncio.sleep(_LOOK_SECONDS)


async def nothing(context: CallContext) -> dict[str, Any]:
    """Undo of waiting."""
    del context
    return {}


def _status(context: CallContext, plugin: str) -> dict[str, dict[str, Any]]:
    """What the supervisor last wrote about the plug-in's services."""
    path = Path(context.installation["state_dir"]) / "plugins" / STATUS_FILE
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {one["service"]: one for one in entries if one["plugin"] == plugin}


def _services(context: PlanContext, what: str, function: str) -> Plan:
    assert isinstance(context.target, PluginState)  # noqa: S101 - the declaration's target
    plugin = installed().get(context.target.name)
    names = [service.name for service in plugin.services]
    if not names:
        return Plan()
    step = CallStep(
        name=f"services-{what}",
        title=f"Wait until the services of {plugin.name} are {what}: {', '.join(names)}",
        timeout=SERVICE_SECONDS,
        function=f"{_HERE}:{function}",
        arguments={"plugin": plugin.name, "services": names},
        undo=f"{_HERE}:nothing",
    )
    return Plan(steps=(step,))


def _apply(row: PluginState, event: str, back: str) -> Change:
    about = {"entity": "plugin", "id": row.id, "field": "state"}
    return Change(
        name="state",
        title=f"Plug-in {row.name}: {event}",
        change="state.apply",
        arguments=about | {"event": event},
        undo="state.apply",
        undo_arguments=about | {"event": back},
    )


def _target(call: Call) -> tuple[PluginState, Plugin]:
    assert isinstance(call.target, PluginState)  # noqa: S101 - the declaration's target
    return call.target, installed().get(call.target.name)


def _in(phase: PluginPhase) -> dict[str, frozenset[str]]:
    return {"state": frozenset({str(phase)})}


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="plugin.init",
        title="Enable a plug-in",
        summary="Check what a plug-in needs and make its settings and tables",
        target=PluginState,
        permission=needs(UserRole.ADMIN),
        allowed=_in(PluginPhase.DISABLED),
        act=f"{_HERE}:init",
    ),
    Operation(
        name="plugin.start",
        title="Start a plug-in",
        summary="Run its services, now and whenever the server starts, and call its hooks",
        target=PluginState,
        allowed=_in(PluginPhase.ENABLED),
        admit=f"{_HERE}:admit_start",
        phases=(Phase(name="services", plan=f"{_HERE}:plan_start"),),
    ),
    Operation(
        name="plugin.stop",
        title="Stop a plug-in",
        summary="End its services and call its hooks no more",
        target=PluginState,
        allowed=_in(PluginPhase.STARTED),
        admit=f"{_HERE}:admit_stop",
        phases=(Phase(name="services", plan=f"{_HERE}:plan_stop"),),
    ),
    Operation(
        name="plugin.uninstall",
        title="Disable a plug-in",
        summary="Drop a plug-in's settings, and its data when asked",
        target=PluginState,
        arguments=UninstallArguments,
        permission=needs(UserRole.ADMIN),
        allowed=_in(PluginPhase.ENABLED),
        destroys=True,
        act=f"{_HERE}:uninstall",
    ),
    Operation(
        name="plugin.configure",
        title="Configure a plug-in",
        summary="Change settings that a plug-in declares",
        target=PluginState,
        arguments=ConfigureArguments,
        permission=needs(UserRole.ADMIN),
        act=f"{_HERE}:configure",
    ),
)
