"""Drivers have the methods that their declarations promise, with the parameters they are called with, and no others."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from openqrm.admin.plugin_check.code import loaded
from openqrm.plugin_api.drivers import (
    Cap,
    Confirming,
    Export,
    ExportDriver,
    Lends,
    Medium,
    Pool,
    PoolDriver,
    Resizes,
    Sans,
    Snapshots,
    Start,
)
from openqrm.plugin_api.script_pool import ScriptPool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openqrm.engine.plugins.catalogue import Catalogue
    from openqrm.plugin_api.plugin import Plugin

BY_CAPABILITY: dict[Cap, type] = {Cap.SNAPSHOT: Snapshots, Cap.RESIZE: Resizes, Cap.LEND: Lends}
"""What a capability's driver has more than the others."""
OF_POOLS = frozenset({Cap.CLONE, Cap.CLONE_COW, Cap.FILL, Cap.SNAPSHOT, Cap.RESIZE, Cap.LIST})
OF_EXPORTS = frozenset({Cap.AUTHORIZE, Cap.REVOKE_PROOF, Cap.SHARED, Cap.LEND})


def methods(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """Each driver has the methods of its protocol and of each declared capability; no capability goes undeclared."""
    del catalogue
    for thing in plugin.provides:
        if not isinstance(thing, Pool | Export) or not thing.driver:
            continue
        driver, fault = loaded(thing.driver, f"driver of {thing.name}")
        if fault:
            continue  # which another validator says
        base: type = PoolDriver if isinstance(thing, Pool) else ExportDriver
        what = f"{'pool' if isinstance(thing, Pool) else 'export'} {thing.name}"
        yield from _unlike(driver, base, what)
        if isinstance(driver, type) and hasattr(driver, "confirms"):
            yield from _unlike(driver, Confirming, what)
        for capability, protocol in BY_CAPABILITY.items():
            if capability in thing.capabilities:
                yield from _unlike(driver, protocol, f"{what} declares {capability}")
            elif capability in (OF_POOLS if isinstance(thing, Pool) else OF_EXPORTS):
                for name in _methods(protocol):
                    if hasattr(driver, name):
                        yield f"{what}: its driver has {name}(), and {capability} is not declared"


def _unlike(driver: Any, protocol: type, what: str) -> Iterator[str]:
    for name, wanted in _methods(protocol).items():
        found = getattr(driver, name, None)
        if not inspect.isfunction(found):
            yield f"{what}: its driver has no method {name}({', '.join(wanted)})"
            continue
        has = inspect.signature(found).parameters
        asked = [one.name for one in has.values() if one.default is one.empty and one.kind not in _REST]
        if list(has)[1 : len(wanted) + 1] != wanted or len(asked) > len(wanted) + 1:
            yield f"{what}: {name}({', '.join(list(has)[1:])}) must be {name}({', '.join(wanted)})"
        if inspect.iscoroutinefunction(found):
            yield f"{what}: {name}() must not be an async function"


_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _methods(protocol: type) -> dict[str, list[str]]:
    """The methods a protocol asks for, with their parameters."""
    return {
        name: list(inspect.signature(function).parameters)[1:]
        for name, function in vars(protocol).items()
        if inspect.isfunction(function) and not name.startswith("_")
    }


def locations(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """What a pool lists and what it hands out are in the same place."""
    del catalogue
    for thing in plugin.provides:
        if not isinstance(thing, Pool) or not thing.driver:
            continue
        driver, _ = loaded(thing.driver, f"driver of {thing.name}")
        scripted = isinstance(driver, type) and issubclass(driver, ScriptPool)
        if scripted and driver.location is not ScriptPool.location:
            yield f"pool {thing.name}: its entries() say another place than its location(); say it in place_of()"


def capabilities(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """Capabilities belong to what declares them, and to each other."""
    del catalogue
    for thing in plugin.provides:
        if not isinstance(thing, Pool | Export):
            continue
        mine = OF_POOLS if isinstance(thing, Pool) else OF_EXPORTS
        for capability in sorted(thing.capabilities - mine):
            yield f"{thing.name} cannot have {capability}: {'an export' if isinstance(thing, Pool) else 'a pool'} can"
        for needed, capability in ((Cap.CLONE, Cap.CLONE_COW), (Cap.AUTHORIZE, Cap.REVOKE_PROOF)):
            if capability in thing.capabilities and needed not in thing.capabilities:
                yield f"{thing.name} declares {capability} without {needed}"


def exports(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """An export that goes through another has nothing of its own; what the boot loader attaches has a disk."""
    for thing in plugin.provides:
        if not isinstance(thing, Export):
            continue
        if thing.through and (thing.driver or thing.secrets or thing.spec.model_fields):
            yield f"export {thing.name} goes through {thing.through}: driver, settings and secrets are that one's"
        if thing.own_machine and thing.medium is not Medium.MACHINE:
            yield f"export {thing.name} is of the machine itself: its medium is {Medium.MACHINE}"
        if thing.start is Start.SAN:
            _, base = catalogue.declared.exports.get(thing.through or thing.name, (plugin, thing))
            driver, fault = loaded(base.driver, f"driver of {base.name}") if base.driver else (None, None)
            if not fault:
                yield from _unlike(driver, Sans, f"export {thing.name} starts machines by SAN")
