"""What a declaration names can be loaded and called, and imports nothing of the core."""

from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING, Any

from openqrm.engine.plugins.catalogue import path_in
from openqrm.operations.registry import check as check_operation
from openqrm.operations.registry import references as named_by
from openqrm.plugin_api.drivers import Export, Pool
from openqrm.plugin_api.loading import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openqrm.engine.plugins.catalogue import Catalogue
    from openqrm.plugin_api.plugin import Plugin

ALLOWED = ("openqrm.plugin_api", "openqrm.domain")
"""What of openqrm a plug-in may import; its tests `openqrm.testing` too."""
HOOK_ARGUMENTS = {"appliance": 4, "resource": 3, "kernel": 3, "assign": 3, "monitor": 2}


def loaded(reference: str, what: str) -> tuple[Any, str | None]:
    """What a reference names, or why it cannot be loaded."""
    try:
        return load(reference), None
    except Exception as error:  # noqa: BLE001 - importing somebody's code may raise anything, and that is the finding
        return None, f"{what}: {reference} cannot be loaded: {type(error).__name__}: {error}"


def references(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """Everything a declaration names can be imported and called."""
    del catalogue
    named = [
        (thing.driver, f"driver of {thing.name}")
        for thing in plugin.provides
        if isinstance(thing, Pool | Export) and thing.driver
    ]
    named += [
        (reference, name) for reference, name in ((plugin.init, "init"), (plugin.uninstall, "uninstall")) if reference
    ]
    for operation in plugin.operations:
        named += [(reference, f"operation {operation.name}") for reference in named_by(operation)]
    for reference, what in named:
        found, fault = loaded(reference, what)
        if fault:
            yield fault
        elif not callable(found):
            yield f"{what}: {reference} cannot be called"


def hooks(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """Hooks take what they are called with; monitor is asynchronous, the others are not."""
    del catalogue
    for name, count in HOOK_ARGUMENTS.items():
        reference = getattr(plugin.hooks, name)
        if reference is None:
            continue
        found, fault = loaded(reference, f"hook {name}")
        if fault:
            yield fault
            continue
        if not _takes(found, count):
            yield f"hook {name}: {reference} must take {count} arguments"
        if inspect.iscoroutinefunction(found) != (name == "monitor"):
            yield f"hook {name}: {reference} must {'' if name == 'monitor' else 'not '}be an async function"


def services(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """`prepare` and `ready` are async functions of one argument."""
    del catalogue
    for service in plugin.services:
        for reference in filter(None, (service.prepare, service.ready)):
            found, fault = loaded(reference, f"service {service.name}")
            if fault:
                yield fault
            elif not (inspect.iscoroutinefunction(found) and _takes(found, 1)):
                yield f"service {service.name}: {reference} must be an async function of one argument"


def _takes(function: Any, count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def operations(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """Declarations do not contradict themselves."""
    del catalogue
    for operation in plugin.operations:
        try:
            check_operation(operation)
        except ValueError as error:
            yield str(error)


def requirements(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """What it requires is installed."""
    for name in plugin.requires.plugins:
        if name not in catalogue.declared.plugins:
            yield f"it requires plug-in {name}, which is not installed"


def imports(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """Its source imports the plug-in API and the domain of openqrm, and nothing else of it; no other plug-in."""
    base = path_in(plugin, ".").resolve()
    others = [one.module for one in catalogue.plugins if one.module != plugin.module]
    for file in own_sources(plugin):
        if parsed(file) is None:
            yield f"{file.relative_to(base)} is no Python that this version understands"
        for name in imported(file):
            if within(name, (plugin.module,)):
                continue
            if any(within(name, (other,)) for other in others):
                yield f"{file.relative_to(base)} imports {name}: plug-ins do not know each other"
            elif name.split(".")[0] == "openqrm" and not within(name, ALLOWED):
                yield f"{file.relative_to(base)} imports {name}: only {' and '.join(ALLOWED)} are stable"


def own_sources(plugin: Plugin) -> list[Path]:
    """A plug-in's modules, without tests that lie beside them."""
    base = path_in(plugin, ".").resolve()
    found = sorted(base.rglob("*.py")) if base.is_dir() else []
    return [file for file in found if file.relative_to(base).parts[0] != "tests"]


def parsed(file: Path) -> ast.Module | None:
    """A module's syntax; None when it has none."""
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return None


def imported(file: Path) -> Iterator[str]:
    """The modules a file imports."""
    for node in ast.walk(parsed(file) or ast.Module([], [])):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (
                (f"{node.module}.{alias.name}" for alias in node.names) if node.module == "openqrm" else (node.module,)
            )


def within(name: str, packages: tuple[str, ...]) -> bool:
    """Whether a module is one of these packages or in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)
