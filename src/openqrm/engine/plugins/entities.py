"""Entities that plug-ins declare: whether their names fit in, and all of an installation's by name. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.entities import ENTITIES
from openqrm.domain.model import attributes, registry_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from openqrm.domain.model import Record
    from openqrm.plugin_api.plugin import Plugin


def all_entities(plugins: Iterable[Plugin]) -> dict[str, type[Record]]:
    """The core's entities and those of `plugins`, by name. ValueError when one is declared twice."""
    return registry_of((*ENTITIES.values(), *(record for plugin in plugins for record in plugin.entities)))


def owners_of(plugins: Iterable[Plugin]) -> dict[str, str]:
    """The plug-in of each entity that is not the core's."""
    return {record.entity.name: plugin.name for plugin in plugins for record in plugin.entities}


def entity_fault(plugin: Plugin, taken: Mapping[str, type[Record]]) -> str | None:
    """Why a plug-in's entities cannot be used beside those in `taken`, if so.

    Their names begin with the plug-in's: so do their tables and addresses, and no two plug-ins meet in one.
    """
    known = dict(taken)
    for record in plugin.entities:
        entity = record.entity
        for name in (entity.name, entity.plural):
            if name != plugin.name and not name.startswith(f"{plugin.name}-"):
                return f"entity {entity.name}: {name} does not begin with {plugin.name}-"
        if entity.name in known or any(entity.plural == other.entity.plural for other in known.values()):
            return f"entity {entity.name} or its plural {entity.plural} is already declared"
        known[entity.name] = record
    own = {record.entity.name for record in plugin.entities}
    for record in plugin.entities:
        for name, attr in attributes(record).items():
            if attr.ref and attr.ref not in own and attr.ref not in ENTITIES:
                return f"entity {record.entity.name}: {name} refers to {attr.ref}, neither the core's nor its own"
    return None
