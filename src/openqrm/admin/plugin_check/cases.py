"""Case files: each verb of each driver has one. Where the plug-in came without its tests there is nothing to say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from openqrm.admin.plugin_scaffold import own_tests
from openqrm.plugin_api.drivers import Cap, Export, Medium, Pool, Start, StorageType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openqrm.engine.plugins.catalogue import Catalogue
    from openqrm.plugin_api.plugin import Plugin

_POOL = {"create": None, "remove": None, "entries": None, "leftovers": None, "clone": Cap.CLONE, "fill": Cap.FILL}
POOL_VERBS: dict[str, Cap | None] = _POOL | {"snapshot": Cap.SNAPSHOT, "resize": Cap.RESIZE}
EXPORT_VERBS: dict[str, Cap | None] = {
    **dict.fromkeys(("grants", "attach", "root_device")),
    **dict.fromkeys(("authorize", "revoke", "withdraw"), Cap.AUTHORIZE),
    **dict.fromkeys(("lend", "reclaim", "lent"), Cap.LEND),
}
"""Verbs with the capability that makes them possible."""


def of_verbs(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """Each verb that a declared capability makes possible is shown by a case."""
    files = list(own_tests(plugin))
    if not files:
        return
    asked = _asked(plugin, catalogue, [json.loads(file.read_text()) for file in files if file.suffix == ".json"])
    for thing in plugin.provides:
        if not isinstance(thing, Pool | Export) or not thing.driver:
            continue
        side = "pool" if isinstance(thing, Pool) else "export"
        verbs = POOL_VERBS if isinstance(thing, Pool) else EXPORT_VERBS
        wanted = [verb for verb, capability in verbs.items() if capability is None or capability in thing.capabilities]
        if thing.medium is Medium.MACHINE:  # no host, and so nothing is left over there and nobody else is let in
            wanted = [verb for verb in wanted if verb not in ("leftovers", "withdraw")]
        wanted += ["san"] if isinstance(thing, Export) and thing.start is Start.SAN else []
        missing = [verb for verb in wanted if (thing.name, f"{side}.{verb}") not in asked]
        if missing:
            yield f"{side} {thing.name} has no case file for: {', '.join(missing)}"


def _asked(plugin: Plugin, catalogue: Catalogue, cases: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """(pool or export, call) of the cases."""
    kinds = {one.name: one for one in plugin.provides if isinstance(one, StorageType)}
    kinds |= {name: kind for name, (_, kind) in catalogue.declared.types.items() if name not in kinds}
    found = set()
    for case in cases:
        call = str(case.get("call", ""))
        side = call.partition(".")[0]
        kind = kinds.get(str(case.get("type", "")))
        found.add((str(getattr(kind, side, "") or case.get(side, "")), call))
    return found
