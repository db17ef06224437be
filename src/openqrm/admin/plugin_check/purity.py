"""Drivers are pure: facts in, steps out. Nothing in them acts, waits, reads a clock or rolls a die."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from openqrm.admin.plugin_check.code import imported, own_sources, parsed
from openqrm.engine.plugins.catalogue import path_in
from openqrm.plugin_api.drivers import Export, Pool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openqrm.engine.plugins.catalogue import Catalogue
    from openqrm.plugin_api.plugin import Plugin

FORBIDDEN = frozenset({"subprocess", "socket", "ssl", "os", "io", "shutil", "tempfile", "glob", "fcntl", "signal"})
FORBIDDEN |= {"time", "random", "secrets", "uuid", "asyncio", "threading", "multiprocessing", "concurrent", "select"}
FORBIDDEN |= {"urllib", "http", "requests", "httpx", "sqlite3", "sqlalchemy"}
CALLS = frozenset({"open", "input", "print", "exec", "eval", "__import__"})
METHODS = frozenset({"now", "today", "utcnow", "write_text", "write_bytes", "unlink", "mkdir", "touch"})


def drivers(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """The modules of drivers, and those of the plug-in that they import, do nothing but think."""
    del catalogue
    base = path_in(plugin, ".").resolve()
    for file in _modules(plugin):
        for line, what in sorted(_impure(file)):
            yield f"{file.relative_to(base)}:{line} {what}: drivers are pure, what acts is a step"


def _modules(plugin: Plugin) -> list[Path]:
    base = path_in(plugin, ".").resolve()
    known = {_module(plugin, base, file): file for file in own_sources(plugin)}
    waiting = [one.driver.partition(":")[0] for one in plugin.provides if isinstance(one, Pool | Export) and one.driver]
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        if name in known and name not in found:
            found[name] = known[name]
            waiting += imported(known[name])
    return [found[name] for name in sorted(found)]


def _module(plugin: Plugin, base: Path, file: Path) -> str:
    parts = file.relative_to(base).with_suffix("").parts
    return ".".join((plugin.module, *(part for part in parts if part != "__init__")))


def _impure(file: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(parsed(file) or ast.Module([], [])):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call):
            yield from _call(node)
            continue
        else:
            continue
        yield from ((node.lineno, f"imports {name}") for name in names if name.partition(".")[0] in FORBIDDEN)


def _call(node: ast.Call) -> Iterator[tuple[int, str]]:
    if isinstance(node.func, ast.Name) and node.func.id in CALLS:
        yield node.lineno, f"calls {node.func.id}()"
    if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
        yield node.lineno, f"calls {node.func.attr}()"
