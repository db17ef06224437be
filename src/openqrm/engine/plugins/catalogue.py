"""The installed plug-ins: found through entry points, checked, in dependency order.

A broken plug-in is listed with its reason and left out; it never keeps the controller from starting.
"""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from openqrm.domain.errors import ConflictError, InvalidError, MissingDependencyError, NotFoundError
from openqrm.domain.event import Severity
from openqrm.domain.plugin_state import PluginPhase, PluginState
from openqrm.engine.plugins.declarations import Broken, Declared, merge
from openqrm.engine.plugins.provided import provided
from openqrm.plugin_api.plugin import ENTRY_POINTS, Plugin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from openqrm.plugin_api.operation import Operation
    from openqrm.plugin_api.plugin import BootService, Dependency
    from openqrm.plugin_api.records import Reader, Writer


@dataclass(frozen=True)
class Catalogue:
    """What is installed on this machine. Which of it is enabled or started is in the database (`PluginState`)."""

    declared: Declared
    broken: tuple[Broken, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    """The distribution and object each plug-in comes from."""

    @cached_property
    def plugins(self) -> tuple[Plugin, ...]:
        """All usable plug-ins, dependencies first."""
        return tuple(self.declared.plugins.values())

    def get(self, name: str) -> Plugin:
        """An installed plug-in; NotFoundError, which says why when it is a broken one."""
        plugin = self.declared.plugins.get(name)
        if plugin is not None:
            return plugin
        reasons = [one.reason for one in self.broken if one.name == name]
        detail = f"plug-in {name} cannot be used: {reasons[0]}" if reasons else f"no plug-in named {name} is installed"
        raise NotFoundError(detail, remedy=f"installed: {', '.join(self.declared.plugins) or 'none'}")

    def enabled(self, reader: Reader) -> tuple[Plugin, ...]:
        """Plug-ins that are enabled or started, dependencies first."""
        return self._in(reader, {PluginPhase.ENABLED, PluginPhase.STARTED})

    def started(self, reader: Reader) -> tuple[Plugin, ...]:
        """Plug-ins that are started, dependencies first."""
        return self._in(reader, {PluginPhase.STARTED})

    def _in(self, reader: Reader, phases: set[PluginPhase]) -> tuple[Plugin, ...]:
        names = {row.name for row in reader.find(PluginState, state__in=sorted(phases))}
        return tuple(plugin for plugin in self.plugins if plugin.name in names)

    def operations(self) -> tuple[Operation, ...]:
        """The operations of all installed plug-ins, for the registry."""
        return tuple(operation for plugin in self.plugins for operation in plugin.operations)

    def owner(self, reference: str) -> Plugin | None:
        """The plug-in that a `module:function` reference belongs to; None for the core's own."""
        module = reference.partition(":")[0]
        fits = [one for one in self.plugins if module == one.module or module.startswith(f"{one.module}.")]
        return max(fits, key=lambda one: len(one.module), default=None)

    def node_file(self, reader: Reader, name: str) -> Path | None:
        """A file that an enabled plug-in hands to machines, for example `root-mount.nfs-root`."""
        for plugin in self.enabled(reader):
            for entry in plugin.node_files:
                if entry.name == name:
                    return path_in(plugin, entry.path)
        return None

    def node_programs(self, reader: Reader) -> tuple[Dependency, ...]:
        """The programs that enabled plug-ins hand to machines."""
        return tuple(entry for plugin in self.enabled(reader) for entry in plugin.node_programs)

    def boot_services(self, reader: Reader) -> tuple[tuple[BootService, Path], ...]:
        """The boot services of started plug-ins and their folders."""
        return tuple(
            (entry, path_in(plugin, entry.path)) for plugin in self.started(reader) for entry in plugin.boot_services
        )

    def without(self, reasons: Mapping[str, str]) -> Catalogue:
        """This catalogue with more plug-ins found broken, by name and reason."""
        kept = [(self.origins.get(one.name, ""), one) for one in self.plugins if one.name not in reasons]
        fallen = tuple(Broken(name, self.origins.get(name, ""), reason) for name, reason in reasons.items())
        return made(kept, (*self.broken, *fallen))

    def check_commands(self, plugin: Plugin, which: Callable[[str], str | None] = shutil.which) -> None:
        """MissingDependencyError, with the command that installs what is missing, unless all commands are on PATH.

        Those too that only machines run: they get them from this server.
        """
        missing = absent(needed(plugin), which)
        if missing:
            raise MissingDependencyError(
                f"plug-in {plugin.name} needs {', '.join(one.command for one in missing)}, not found on this server",
                remedy=install(missing),
            )

    def check_before(self, plugin: Plugin, reader: Reader, phase: PluginPhase) -> None:
        """MissingDependencyError unless the plug-ins it requires are in `phase` or further."""
        enough = self.started(reader) if phase is PluginPhase.STARTED else self.enabled(reader)
        names = {one.name for one in enough}
        missing = [name for name in plugin.requires.plugins if name not in names]
        if missing:
            verb = "start" if phase is PluginPhase.STARTED else "init"
            known = [name for name in missing if name in self.declared.plugins]
            remedy = "; ".join(f"openqrm plugin {verb} {name}" for name in known)
            raise MissingDependencyError(
                f"plug-in {plugin.name} needs plug-in {', '.join(missing)} {phase} first",
                remedy=remedy or f"install a package that brings plug-in {', '.join(missing)}",
            )

    def check_after(self, plugin: Plugin, reader: Reader, phase: PluginPhase) -> None:
        """ConflictError while another plug-in in `phase` or further requires this one."""
        users = self.started(reader) if phase is PluginPhase.STARTED else self.enabled(reader)
        names = [one.name for one in users if plugin.name in one.requires.plugins]
        if names:
            verb = "stop" if phase is PluginPhase.STARTED else "uninstall"
            raise ConflictError(
                f"plug-in {', '.join(names)} needs {plugin.name}",
                remedy="; ".join(f"openqrm plugin {verb} {name}" for name in names),
            )


def of(plugins: Iterable[Plugin], broken: tuple[Broken, ...] = ()) -> Catalogue:
    """A catalogue of given plug-ins, for tests and tools."""
    return made([(plugin.module, plugin) for plugin in plugins], broken)


def made(found: Sequence[tuple[str, Plugin]], broken: tuple[Broken, ...]) -> Catalogue:
    """A catalogue of plug-ins with their origins."""
    declared, more = merge(found)
    return Catalogue(declared, (*broken, *more), {plugin.name: origin for origin, plugin in reversed(found)})


def discover(group: str = ENTRY_POINTS) -> Catalogue:
    """All plug-ins that installed distributions register under the entry-point group."""
    found: list[tuple[str, Plugin]] = []
    broken: list[Broken] = []
    for point in sorted(importlib.metadata.entry_points(group=group), key=lambda one: (one.name, one.value)):
        origin = f"{point.dist.name} {point.dist.version}: {point.value}" if point.dist else point.value
        plugin = _loaded(point)
        if isinstance(plugin, Plugin):
            found.append((origin, plugin))
        else:
            broken.append(Broken(point.name, origin, plugin))
    return made(found, tuple(broken))


def _loaded(point: importlib.metadata.EntryPoint) -> Plugin | str:
    """The plug-in, or why it cannot be used."""
    try:
        plugin = point.load()
    except Exception as error:  # noqa: BLE001 - a third party's module may raise anything, and must not stop us
        return f"it cannot be imported: {type(error).__name__}: {error}"
    if not isinstance(plugin, Plugin):
        return f"it is {type(plugin).__name__}, not a Plugin"
    if plugin.name != point.name:
        return f"it is registered as {point.name} but named {plugin.name}"
    return plugin


def register(writer: Writer, catalogue: Catalogue) -> None:
    """Give every installed plug-in its row, and log the broken ones. Run at every start of a controller."""
    rows = {row.name: row for row in writer.find(PluginState)}
    for plugin in catalogue.plugins:
        row = rows.get(plugin.name)
        known = {"family": str(plugin.family), "title": plugin.title, "provides": provided(plugin, catalogue.declared)}
        if row is None:
            writer.insert(PluginState(name=plugin.name, settings=defaults(plugin), **known))
        elif any(getattr(row, name) != value for name, value in known.items()):
            writer.update(row, **known)
    for fault in catalogue.broken:
        text = f"plug-in {fault.name} ({fault.origin}) is left out: {fault.reason}"
        writer.event(text, severity=Severity.ERROR, source="plugins")
    for row in rows.values():
        if row.state != PluginPhase.DISABLED and row.name not in catalogue.declared.plugins:
            text = f"plug-in {row.name} is {row.state} but not installed any more"
            writer.event(text, severity=Severity.ERROR, source="plugins", about=row)


def defaults(plugin: Plugin) -> dict[str, Any]:
    """The plug-in's settings as they are until someone changes them; empty when some have no default."""
    try:
        return plugin.settings().model_dump(mode="json")
    except ValidationError:
        return {}


def settings_of(plugin: Plugin, values: Mapping[str, Any]) -> BaseModel:
    """Validated settings; InvalidError naming the field."""
    return validated(plugin.settings, values, f"plug-in {plugin.name}")


def validated(model: type[BaseModel], values: Mapping[str, Any], whose: str) -> BaseModel:
    """Data as `model`; InvalidError naming the first field at fault."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(str(part) for part in fault["loc"]) or None
        raise InvalidError(
            f"settings of {whose}: {field or 'all'}: {fault['msg']}",
            field=f"settings.{field}" if field else "settings",
            remedy=f"fields: {', '.join(model.model_fields) or 'none'}",
        ) from error


def needed(plugin: Plugin) -> tuple[Dependency, ...]:
    """The commands that must be on this server: those that it runs, and those that machines fetch from it."""
    return tuple(dict.fromkeys((*plugin.requires.commands, *plugin.node_programs)))


def absent(commands: Iterable[Dependency], which: Callable[[str], str | None] = shutil.which) -> tuple[Dependency, ...]:
    """The commands that are not on PATH (with the system directories, which a user's PATH often lacks), and files."""
    return tuple(one for one in commands if not (which(one.command) or _elsewhere(one.command)))


def _elsewhere(command: str) -> bool:
    if command.startswith("/"):
        return Path(command).exists()
    return any(shutil.which(command, path=path) for path in ("/usr/sbin", "/sbin", "/usr/local/sbin"))


def install(missing: Iterable[Dependency]) -> str:
    """The command that installs packages."""
    packages = sorted({one.package for one in missing})
    return f"apt-get install -y --no-install-recommends {' '.join(packages)}"


def path_in(plugin: Plugin, relative: str) -> Path:
    """A file or folder beside the plug-in's code."""
    return Path(str(importlib.resources.files(plugin.module))) / relative
