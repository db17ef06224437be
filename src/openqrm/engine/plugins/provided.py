"""What a plug-in provides, as data for lists and pages. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.plugin_api.drivers import Export, Pool

if TYPE_CHECKING:
    from openqrm.engine.plugins.declarations import Declared
    from openqrm.plugin_api.plugin import Plugin


def provided(plugin: Plugin, declared: Declared) -> dict[str, dict[str, list[str]]]:
    """Pools, exports and storage types by name, with what they can; types are those that need the plug-in."""
    pools = {one.name: sorted(one.capabilities) for one in plugin.provides if isinstance(one, Pool)}
    exports = {one.name: sorted(declared.exports[one.name][1].capabilities) for one in exports_of(plugin)}
    types = {
        kind: sorted(declared.pools[joined.pool][1].capabilities | declared.exports[joined.export][1].capabilities)
        for kind, (_, joined) in declared.types.items()
        if plugin.name in {one.name for one in declared.providers(kind)}
    }
    found = {"pools": pools, "exports": exports, "storage_types": types}
    return {what: {name: list(map(str, can)) for name, can in each.items()} for what, each in found.items() if each}


def exports_of(plugin: Plugin) -> tuple[Export, ...]:
    """The exports that a plug-in declares."""
    return tuple(one for one in plugin.provides if isinstance(one, Export))
