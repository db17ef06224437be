"""Settings of plug-ins, pools and exports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.model import Attr
from openqrm.plugin_api.drivers import Export, Medium, Pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from openqrm.engine.plugins.catalogue import Catalogue
    from openqrm.plugin_api.plugin import Plugin


def titles(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """Every setting has a title, so that forms and help can show it, and a default, so that enabling asks nothing."""
    del catalogue
    yield from _untitled(plugin.settings, "setting")
    for name, field in plugin.settings.model_fields.items():
        if field.is_required():
            yield f"setting {name} has no default"
    for thing in plugin.provides:
        if isinstance(thing, Pool | Export):
            yield from _untitled(thing.spec, f"setting of {thing.name}")


def _untitled(model: type[BaseModel], what: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        attr = next((extra for extra in field.metadata if isinstance(extra, Attr)), None)
        if attr is None or not attr.title:
            yield f"{what} {name} has no Attr with its title"
    if model.model_config.get("extra") != "forbid":
        yield f'{what}: {model.__name__} accepts unknown fields; say extra="forbid"'


def places(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """The settings of a pool on a host say where its volumes are: no two storages may keep them in one place."""
    del catalogue
    for thing in plugin.provides:
        if not isinstance(thing, Pool) or thing.medium is Medium.MACHINE:
            continue
        if not (hasattr(thing.spec, "place") or "place" in thing.spec.model_fields):
            yield f"pool {thing.name}: {thing.spec.__name__} has no property place, which says where the volumes are"
