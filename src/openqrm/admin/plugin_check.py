"""What is wrong with a plug-in's declaration and code, without running it. One function for each concern."""

from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING, Any

from openqrm.domain.model import Attr
from openqrm.engine.plugins.catalogue import path_in
from openqrm.operations.registry import check as check_operation
from openqrm.operations.registry import references
from openqrm.plugin_api.drivers import Export, Pool
from openqrm.plugin_api.loading import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import BaseModel

    from openqrm.engine.plugins.catalogue import Catalogue
    from openqrm.plugin_api.plugin import Plugin

ALLOWED = ("openqrm.plugin_api", "openqrm.domain")
"""What of openqrm a plug-in may import; its tests `openqrm.testing` too."""
HOOK_ARGUMENTS = {"appliance": 4, "resource": 3, "kernel": 3, "assign": 3, "monitor": 2}


def faults(plugin: Plugin, catalogue: Catalogue) -> list[str]:
    """Everything that is wrong with an installed plug-in."""
    checks = (_code, _hooks, _services, _files, _settings, _operations, _imports)
    found = [fault for one in checks for fault in one(plugin)]
    missing = [name for name in plugin.requires.plugins if name not in catalogue.declared.plugins]
    return found + [f"it requires plug-in {name}, which is not installed" for name in missing]


def _loaded(reference: str, what: str) -> tuple[Any, str | None]:
    try:
        return load(reference), None
    except Exception as error:  # noqa: BLE001 - importing somebody's code may raise anything, and that is the finding
        return None, f"{what}: {reference} cannot be loaded: {type(error).__name__}: {error}"


def _code(plugin: Plugin) -> Iterator[str]:
    """Everything a declaration names can be imported and called."""
    named = [(thing.driver, f"driver of {thing.name}") for thing in plugin.provides if isinstance(thing, Pool | Export)]
    named += [
        (reference, name) for reference, name in ((plugin.init, "init"), (plugin.uninstall, "uninstall")) if reference
    ]
    for operation in plugin.operations:
        named += [(reference, f"operation {operation.name}") for reference in references(operation)]
    for reference, what in named:
        found, fault = _loaded(reference, what)
        if fault:
            yield fault
        elif not callable(found):
            yield f"{what}: {reference} cannot be called"


def _hooks(plugin: Plugin) -> Iterator[str]:
    """Hooks take what they are called with; monitor is asynchronous, the others are not."""
    for name, count in HOOK_ARGUMENTS.items():
        reference = getattr(plugin.hooks, name)
        if reference is None:
            continue
        found, fault = _loaded(reference, f"hook {name}")
        if fault:
            yield fault
            continue
        if not _takes(found, count):
            yield f"hook {name}: {reference} must take {count} arguments"
        if inspect.iscoroutinefunction(found) != (name == "monitor"):
            yield f"hook {name}: {reference} must {'' if name == 'monitor' else 'not '}be an async function"


def _services(plugin: Plugin) -> Iterator[str]:
    """`prepare` and `ready` are async functions of one argument."""
    for service in plugin.services:
        for reference in filter(None, (service.prepare, service.ready)):
            found, fault = _loaded(reference, f"service {service.name}")
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


def _files(plugin: Plugin) -> Iterator[str]:
    """Files and folders for machines are there; a boot service can be started and stopped."""
    for file in plugin.node_files:
        if not path_in(plugin, file.path).is_file():
            yield f"node file {file.name}: there is no {file.path}"
    for service in plugin.boot_services:
        for name in ("start", "stop"):
            script = path_in(plugin, service.path) / name
            if not (script.is_file() and script.stat().st_mode & 0o100):
                yield f"boot service {service.name}: {service.path}/{name} is not an executable file"
    if not path_in(plugin, "README.md").is_file():
        yield "it has no README.md beside its code"


def _settings(plugin: Plugin) -> Iterator[str]:
    """Every setting has a title, so that forms and help can show it, and a default, so that enabling asks nothing."""
    yield from _untitled(plugin.settings, "setting")
    for name, field in plugin.settings.model_fields.items():
        if field.is_required():
            yield f"setting {name} has no default"
    for thing in plugin.provides:
        if isinstance(thing, Pool | Export):
            yield from _untitled(thing.spec, f"setting of {thing.name}")


def _untitled(model: type[BaseModel], what: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if not any(isinstance(extra, Attr) for extra in field.metadata):
            yield f"{what} {name} has no Attr with its title"
    if model.model_config.get("extra") != "forbid":
        yield f'{what}: {model.__name__} accepts unknown fields; say extra="forbid"'


def _operations(plugin: Plugin) -> Iterator[str]:
    """Declarations do not contradict themselves."""
    for operation in plugin.operations:
        try:
            check_operation(operation)
        except ValueError as error:
            yield str(error)


def _imports(plugin: Plugin) -> Iterator[str]:
    """Its source imports the plug-in API and the domain of openqrm, and nothing else of it."""
    base = path_in(plugin, ".").resolve()
    for file in sorted(base.rglob("*.py")) if base.is_dir() else ():
        for name in _imported(file):
            own = name == plugin.module or name.startswith(f"{plugin.module}.")
            allowed = any(name == one or name.startswith(f"{one}.") for one in ALLOWED)
            if name.split(".")[0] == "openqrm" and not own and not allowed:
                yield f"{file.relative_to(base)} imports {name}: only {' and '.join(ALLOWED)} are stable"


def _imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (
                (f"{node.module}.{alias.name}" for alias in node.names) if node.module == "openqrm" else (node.module,)
            )
