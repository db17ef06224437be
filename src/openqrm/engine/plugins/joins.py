"""How pools and exports become storage types: which join by themselves, and why one cannot. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from openqrm.plugin_api.drivers import Export, Medium, Pool, StorageType

if TYPE_CHECKING:
    from openqrm.plugin_api.plugin import Plugin

Pools = Mapping[str, tuple["Plugin", Pool]]
Exports = Mapping[str, tuple["Plugin", Export]]
Types = dict[str, tuple["Plugin", StorageType]]


def faults(pools: Pools, exports: Exports, types: Types) -> dict[str, str]:
    """What is wrong with how declarations refer to each other, by the plug-in at fault."""
    wrong: dict[str, str] = {}
    for plugin, export in exports.values():
        reason = _through_fault(plugin, export, exports)
        if reason:
            wrong.setdefault(plugin.name, reason)
    for plugin, kind in types.values():
        reason = _join_fault(plugin, kind, pools, exports)
        if reason:
            wrong.setdefault(plugin.name, reason)
    return wrong


def _through_fault(plugin: Plugin, export: Export, exports: Exports) -> str | None:
    """Why an export cannot grant through another, if it is to."""
    if not export.through:
        return None if export.driver else f"export {export.name} has no driver and goes through no other export"
    provider, base = exports.get(export.through, (None, None))
    if provider is None or base is None:
        return f"export {export.name} goes through export {export.through}, which no plug-in provides"
    if provider.name != plugin.name and provider.name not in plugin.requires.plugins:
        return f"export {export.name} goes through {base.name} of {provider.name}, which the plug-in does not require"
    if base.through or base.medium is not export.medium:
        return f"export {export.name} cannot go through export {base.name} ({base.medium})"
    return None


def whole(export: Export, exports: Exports) -> Export:
    """An export that goes through another, with what it has from there."""
    if not export.through:
        return export
    base = exports[export.through][1]
    capabilities = base.capabilities | export.capabilities
    return replace(export, driver=base.driver, spec=base.spec, secrets=base.secrets, capabilities=capabilities)


def join(
    pools: Pools,
    exports: Exports,
    types: Types,
) -> None:
    """Join each pool with every export of its medium that no storage type joins it with."""
    named = {(kind.pool, kind.export) for _, kind in types.values()}
    for plugin, pool in pools.values():
        for _, export in exports.values():
            name = f"{pool.prefix or pool.name}-{export.name}"
            fits = pool.medium is export.medium and pool.medium is not Medium.MACHINE
            if fits and (pool.name, export.name) not in named and name not in types:
                title = f"{plugin.title}, {export.name}"
                types[name] = (plugin, StorageType(name, title, pool.name, export.name))


def _join_fault(
    plugin: Plugin,
    kind: StorageType,
    pools: Pools,
    exports: Exports,
) -> str | None:
    """Why a storage type cannot be: an unknown side, a side of a plug-in it does not require, or two media."""
    sides = (
        ("pool", kind.pool, pools[kind.pool][0] if kind.pool in pools else None),
        ("export", kind.export, exports[kind.export][0] if kind.export in exports else None),
    )
    for what, name, provider in sides:
        if provider is None:
            return f"storage type {kind.name} joins {what} {name}, which no plug-in provides"
        if provider.name != plugin.name and provider.name not in plugin.requires.plugins:
            return (
                f"storage type {kind.name} joins {what} {name} of {provider.name}, which the plug-in does not require"
            )
    pool, export = pools[kind.pool][1], exports[kind.export][1]
    if pool.medium is not export.medium:
        return (
            f"storage type {kind.name} cannot join pool {pool.name} ({pool.medium}) "
            f"with export {export.name} ({export.medium})"
        )
    return None
