"""Whether declarations fit together: names taken once, joins of storage types, dependencies without a circle. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from openqrm.domain.errors import InvalidError
from openqrm.engine.plugins import joins
from openqrm.plugin_api.drivers import Export, Pool, StorageType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from openqrm.plugin_api.plugin import Plugin

T = TypeVar("T", Pool, Export, StorageType)


@dataclass(frozen=True)
class Declared:
    """All that installed plug-ins provide, by name; each with the plug-in it comes from."""

    plugins: Mapping[str, Plugin]
    """In dependency order."""
    pools: Mapping[str, tuple[Plugin, Pool]]
    exports: Mapping[str, tuple[Plugin, Export]]
    types: Mapping[str, tuple[Plugin, StorageType]]

    def providers(self, kind: str) -> tuple[Plugin, ...]:
        """The plug-ins that a storage type needs: its own, its pool's, its export's and whose grants that gives."""
        plugin, joined = self.types[kind]
        export_plugin, export = self.exports[joined.export]
        through = (self.exports[export.through][0],) if export.through else ()
        found = (plugin, self.pools[joined.pool][0], export_plugin, *through)
        return tuple({one.name: one for one in found}.values())

    def storage_settings(self) -> dict[str, dict[str, Any]]:
        """What operations may know of storage types without their drivers, as data."""
        kinds = {name: kind for name, (_, kind) in self.types.items()}
        sides = {name: (self.pools[kind.pool][1], self.exports[kind.export][1]) for name, kind in kinds.items()}
        return {
            "deployments": {name: export.deployment for name, (_, export) in sides.items()},
            "storage_types": {
                name: {
                    "own_machine": export.own_machine,
                    "in_memory": export.in_memory,
                    "start": str(export.start),
                    "secrets": list(export.secrets),
                    "through": self.exports[export.through][1].deployment if export.through else "",
                    "capabilities": sorted(pool.capabilities | export.capabilities),
                }
                for name, (pool, export) in sides.items()
            },
        }


@dataclass(frozen=True)
class Broken:
    """An installed plug-in that cannot be used, and why. The rest goes on without it."""

    name: str
    origin: str
    """The distribution and object it was to come from."""
    reason: str


def ordered(plugins: Iterable[Plugin]) -> tuple[Plugin, ...]:
    """Dependencies first, by name where there is a choice; InvalidError for a circle.

    A dependency that is not installed does not count here: it is reported when the plug-in is enabled.
    """
    waiting = {plugin.name: plugin for plugin in sorted(plugins, key=lambda one: one.name)}
    done: dict[str, Plugin] = {}
    while waiting:
        ready = [one for one in waiting.values() if not any(name in waiting for name in one.requires.plugins)]
        if not ready:
            raise InvalidError(f"plug-ins need each other in a circle: {', '.join(waiting)}", field="requires")
        for plugin in ready:
            done[plugin.name] = waiting.pop(plugin.name)
    return tuple(done.values())


def merge(plugins: Iterable[tuple[str, Plugin]]) -> tuple[Declared, tuple[Broken, ...]]:
    """Declarations of `(origin, plug-in)` as one, and the plug-ins that had to be left out."""
    fine: dict[str, tuple[str, Plugin]] = {}
    broken: list[Broken] = []
    for origin, plugin in plugins:
        if plugin.name in fine:
            broken.append(Broken(plugin.name, origin, f"the name is taken by {fine[plugin.name][0]}"))
        else:
            fine[plugin.name] = (origin, plugin)
    broken += _without_circles(fine)
    while True:
        declared, wrong = _declare(ordered(plugin for _, plugin in fine.values()))
        if not wrong:
            return declared, tuple(broken)
        for name, reason in wrong.items():
            broken.append(Broken(name, fine.pop(name)[0], reason))


def _without_circles(fine: dict[str, tuple[str, Plugin]]) -> list[Broken]:
    """Take plug-ins that need each other out of `fine`."""
    waiting = {name: set(plugin.requires.plugins) & set(fine) for name, (_, plugin) in fine.items()}
    while ready := [name for name, needs in waiting.items() if not needs & set(waiting)]:
        for name in ready:
            del waiting[name]
    reason = f"plug-ins need each other in a circle: {', '.join(sorted(waiting))}"
    return [Broken(name, fine.pop(name)[0], reason) for name in list(waiting)]


def _declare(plugins: tuple[Plugin, ...]) -> tuple[Declared, dict[str, str]]:
    """What the plug-ins provide together, and what is wrong with which of them, if anything."""
    pools: dict[str, tuple[Plugin, Pool]] = {}
    exports: dict[str, tuple[Plugin, Export]] = {}
    types: dict[str, tuple[Plugin, StorageType]] = {}
    wrong: dict[str, str] = {}
    for plugin in plugins:
        for thing in plugin.provides:
            if isinstance(thing, Pool):
                reason = _enter(pools, thing.name, plugin, thing, "pool")
            elif isinstance(thing, Export):
                reason = _enter(exports, thing.name, plugin, thing, "export")
            else:
                reason = _enter(types, thing.name, plugin, thing, "storage type")
            if reason:
                wrong.setdefault(plugin.name, reason)
    for name, reason in joins.faults(pools, exports, types).items():
        wrong.setdefault(name, reason)
    if not wrong:
        exports = {name: (plugin, joins.whole(export, exports)) for name, (plugin, export) in exports.items()}
        joins.join(pools, exports, types)
    return Declared({plugin.name: plugin for plugin in plugins}, pools, exports, types), wrong


def _enter(known: dict[str, tuple[Plugin, T]], name: str, plugin: Plugin, thing: T, what: str) -> str | None:
    if name in known:
        return f"{what} {name} is already provided by {known[name][0].name}"
    known[name] = (plugin, thing)
    return None
