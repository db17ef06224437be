"""The reference page of the installed plug-ins: what each provides, and every setting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.model import Attr
from openqrm.plugin_api.drivers import Export, Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic import BaseModel

    from openqrm.engine.plugins.catalogue import Catalogue
    from openqrm.engine.plugins.declarations import Declared
    from openqrm.plugin_api.plugin import Plugin

_HEAD = """# Plug-ins

`openqrm plugin init NAME` enables one, `openqrm plugin configure NAME` changes its settings.

## Storage types

Each pool is joined with every export of its medium, unless a plug-in names the join.

"""


def plugins_page(catalogue: Catalogue, table: Callable[[Sequence[str], Sequence[Sequence[Any]]], str]) -> str:
    """Storage types first, then the plug-ins. `table` makes Markdown of a head and rows."""
    declared = catalogue.declared
    text = _HEAD
    text += table(("type", "pool", "export", "deployment", "plug-ins", "can"), _types(declared))
    for plugin in sorted(catalogue.plugins, key=lambda one: one.name):
        text += f"## {plugin.name}\n\n{plugin.summary.rstrip('.')}.\n\n" + _needs(plugin)
        text += _settings(plugin.settings, table)
        for thing in plugin.provides:
            if isinstance(thing, Pool):
                can = _can(thing.capabilities)
                text += f"### Pool `{thing.name}`\n\nOf medium {thing.medium}. It can: {can}.\n\n"
                text += _settings(thing.spec, table)
            elif isinstance(thing, Export):
                text += _export(declared.exports[thing.name][1]) + _settings(thing.spec, table)
    return text


def _types(declared: Declared) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, (_, kind) in sorted(declared.types.items()):
        pool, export = declared.pools[kind.pool][1], declared.exports[kind.export][1]
        plugins = ", ".join(sorted(one.name for one in declared.providers(name)))
        can = _can(pool.capabilities | export.capabilities)
        rows.append((f"`{name}`", f"`{kind.pool}`", f"`{kind.export}`", f"`{export.deployment}`", plugins, can))
    return rows


def _can(capabilities: frozenset[Any]) -> str:
    return ", ".join(f"`{one}`" for one in sorted(capabilities)) or "nothing more"


def _needs(plugin: Plugin) -> str:
    lines = [f"{plugin.about}\n\n"] if plugin.about else []
    needed = [f"plug-in {name}" for name in plugin.requires.plugins]
    needed += [f"`{one.command}` (package {one.package})" for one in plugin.requires.commands]
    if needed:
        lines.append(f"Needs on the server: {', '.join(needed)}.\n\n")
    return "".join(lines)


def _export(export: Export) -> str:
    through = f" through export `{export.through}`" if export.through else ""
    secrets = f" Made anew for each grant: {', '.join(export.secrets)}." if export.secrets else ""
    return (
        f"### Export `{export.name}`\n\nOf medium {export.medium}{through}; machines use it by deployment type "
        f"`{export.deployment}`. It can: {_can(export.capabilities)}.{secrets}\n\n"
    )


def _settings(model: type[BaseModel], table: Callable[[Sequence[str], Sequence[Sequence[Any]]], str]) -> str:
    rows = []
    for name, field in model.model_fields.items():
        attr = next((extra for extra in field.metadata if isinstance(extra, Attr)), Attr(name))
        default = "" if field.is_required() or attr.secret else f"`{field.get_default(call_default_factory=True)}`"
        meaning = ": ".join(part for part in (attr.title, attr.help) if part)
        rows.append((f"`{name}`", default, meaning + (f" ({attr.unit})" if attr.unit else "")))
    return table(("setting", "default", "meaning"), rows) if rows else ""
