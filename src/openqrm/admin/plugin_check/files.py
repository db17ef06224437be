"""Files beside a plug-in's code: what machines fetch, its page, its size."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from openqrm.admin.plugin_check.code import own_sources
from openqrm.engine.plugins.catalogue import path_in
from openqrm.plugin_api.drivers import Export, Start
from openqrm.plugin_api.plugin import Family

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openqrm.engine.plugins.catalogue import Catalogue
    from openqrm.plugin_api.plugin import Plugin

MOST_LINES = 400
"""Of a storage plug-in's Python and shell, its cases apart: more is two plug-ins, or a library.

An export that works with several programs of the host has each in a folder `servers/NAME`; they count apart.
"""
_SERVERS = "servers"
_HOW_TO = re.compile(r"^#+ *how to", re.IGNORECASE | re.MULTILINE)


def for_machines(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """Files and folders for machines are there; a boot service can be started and stopped."""
    del catalogue
    for file in plugin.node_files:
        if not path_in(plugin, file.path).is_file():
            yield f"node file {file.name}: there is no {file.path}"
    for service in plugin.boot_services:
        for name in ("start", "stop"):
            script = path_in(plugin, service.path) / name
            if not (script.is_file() and script.stat().st_mode & 0o100):
                yield f"boot service {service.name}: {service.path}/{name} is not an executable file"


def root_mounts(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """Each deployment that the initramfs mounts has its hook."""
    names = {file.name for one in (plugin, *catalogue.plugins) for file in one.node_files}
    for thing in plugin.provides:
        hook = f"root-mount.{thing.deployment}" if isinstance(thing, Export) else ""
        if isinstance(thing, Export) and thing.start is Start.ROOT and hook not in names:
            yield f"export {thing.name}: machines find no node file {hook}"


def readme(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """A page, and for a storage plug-in how it is used."""
    del catalogue
    page = path_in(plugin, "README.md")
    if not page.is_file():
        yield "it has no README.md beside its code"
    elif plugin.family is Family.STORAGE and not _HOW_TO.search(page.read_text(encoding="utf-8")):
        yield "its README.md has no section `## How to` with the few commands that use it"


def counted(plugin: Plugin) -> Counter[str]:
    """The lines of a storage plug-in's Python and shell, under ""; those of `servers/NAME` apart. Of others nothing."""
    lines: Counter[str] = Counter()
    if plugin.family is not Family.STORAGE:
        return lines
    base = path_in(plugin, ".").resolve()
    for file in {path.resolve() for path in [*own_sources(plugin), *scripts(plugin)]}:
        where = file.relative_to(base).parts
        lines["/".join(where[:2]) if where[0] == _SERVERS and where[2:] else ""] += len(
            file.read_text(encoding="utf-8").splitlines()
        )
    return lines


def size(plugin: Plugin) -> Iterator[str]:
    """A storage plug-in is small, and so is what it has for each server software."""
    for folder, count in sorted(counted(plugin).items()):
        if count >= MOST_LINES:
            what = folder or "it"
            yield f"{what} has {count} lines of Python and shell; a storage plug-in has less than {MOST_LINES}"


def scripts(plugin: Plugin) -> list[Path]:
    """What is run on storage hosts, and hooks of machines."""
    folders = [path_in(plugin, name) for name in ("scripts", _SERVERS)]
    found = {file for folder in folders for file in folder.rglob("*") if file.is_file()}
    found |= {path for file in plugin.node_files if (path := path_in(plugin, file.path)).is_file()}
    return sorted(file for file in found if file.suffix not in (".py", ".pyc"))
