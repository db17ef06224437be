"""Case files of storage drivers: a specification and facts in, the exact steps out. No mock, no host.

A case is a JSON object:

- `type`: the storage type. `call`: `pool.create`, `pool.remove`, `pool.clone`, `pool.fill`, `pool.entries`,
  `pool.location`, `export.authorize`, `export.revoke`, `export.grants`, `export.attach`, `export.root_device`, or
  `pool.confirms` and `export.confirms`.
- `settings`: of the storage. `address`: of its host, which is resource 5. `volume`, `source`: fields of volumes.
  `client`, `generation`, `archive`, `capability`: as the call needs.
- `facts`: by name of the fact, what the host printed; null: the status that means absent.
- Expected, one of: `steps` (all fields that are not at their default), `result`, or `error` (its code, and a part of
  its text as `contains`).

In expected steps `{"files": [...]}` stands for the content of files of the plug-in, one after the other.
"""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import OpenqrmError
from openqrm.domain.storage import Storage, Volume
from openqrm.plugin_api.drivers import Cap, Client, Export, Pool, StorageContext, StorageType
from openqrm.plugin_api.facts import Fact, Facts
from openqrm.plugin_api.loading import load
from openqrm.plugin_api.steps import Plan

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from openqrm.plugin_api.plugin import Plugin

HOST = 5
ADDRESS = "192.0.2.5"


def load_cases(directory: Path) -> dict[str, dict[str, Any]]:
    """All cases below a directory by file name. ValueError when there is none."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.json"))}
    if not found:
        raise ValueError(f"there is no case in {directory}")
    return found


def check_case(plugin: Plugin, case: dict[str, Any]) -> None:
    """AssertionError with both sides when the driver answers something else."""
    expected = {name: case[name] for name in ("steps", "result", "error") if name in case}
    assert len(expected) == 1, "a case expects one of: steps, result, error"  # noqa: S101
    actual = run_case(plugin, case)
    if "error" in actual and "error" in expected:
        expected = {"error": dict(expected["error"])}
        part = expected["error"].pop("contains", "")
        text = " ".join(actual["error"].pop(name, "") for name in ("detail", "remedy", "field"))
        assert part in text, f"{part!r} is not in {text!r}"  # noqa: S101
    wanted = _with_files(expected, plugin)
    assert actual == wanted, _difference(actual, wanted)  # noqa: S101


def run_case(plugin: Plugin, case: dict[str, Any]) -> dict[str, Any]:
    """What the driver answers, in the form of a case's expectation."""
    side, _, verb = case["call"].partition(".")
    context, drivers = _context(plugin, case)
    driver = drivers[side]
    facts = _facts(driver.facts(context), case.get("facts", {}))
    try:
        answer = getattr(driver, verb)(**_arguments(verb, case, context, drivers, facts))
    except OpenqrmError as error:
        return {"error": error.as_dict()}
    if verb in ("create", "remove", "clone", "fill", "authorize", "revoke"):
        plan = Plan(steps=tuple(answer))  # which refuses two steps of one name
        dumped = [{"kind": step.kind, **step.model_dump(mode="json", exclude_defaults=True)} for step in plan.steps]
        return {"steps": dumped}
    return {"result": _plain(answer)}


def _context(plugin: Plugin, case: dict[str, Any]) -> tuple[StorageContext, dict[str, Any]]:
    kind = next(one for one in plugin.provides if isinstance(one, StorageType) and one.name == case["type"])
    pool = next(one for one in plugin.provides if isinstance(one, Pool) and one.name == kind.pool)
    export = next(one for one in plugin.provides if isinstance(one, Export) and one.name == kind.export)
    settings = case.get("settings", {})
    storage = Storage(id=1, name="store", type=kind.name, resource_id=HOST, settings=settings)
    specs = [
        side.spec(**{name: value for name, value in settings.items() if name in side.spec.model_fields})
        for side in (pool, export)
    ]
    context = StorageContext(storage, HOST, case.get("address", ADDRESS), specs[0], specs[1])
    return context, {"pool": load(pool.driver)(), "export": load(export.driver)()}


def _facts(asked: Iterable[Fact[Any]], said: dict[str, str | None]) -> Facts:
    values: dict[str, object] = {}
    for fact in asked:
        if fact.name in said:
            output = said[fact.name]
            values[fact.name] = fact.missing if output is None else fact.parse(output)
    return Facts(values)


def _arguments(
    verb: str, case: dict[str, Any], context: StorageContext, drivers: dict[str, Any], facts: Facts
) -> dict[str, Any]:
    given: dict[str, Any] = {"context": context, "facts": facts}
    if "volume" in case:
        given["volume"] = Volume(storage_id=1, **case["volume"])
        given["location"] = drivers["pool"].location(context, given["volume"])
    if "source" in case:
        given["source"] = Volume(storage_id=1, **case["source"])
    if "client" in case:
        given["client"] = Client(**case["client"])
    if "capability" in case:
        given["capability"] = Cap(case["capability"])
    given |= {name: case[name] for name in ("generation", "archive") if name in case}
    wanted = {
        "create": ("volume", "facts"),
        "remove": ("volume", "facts"),
        "clone": ("source", "volume", "facts"),
        "fill": ("volume", "archive", "facts"),
        "entries": ("facts",),
        "grants": ("facts",),
        "location": ("volume",),
        "authorize": ("volume", "location", "client", "generation", "facts"),
        "revoke": ("volume", "location", "client", "generation", "facts"),
        "root_device": ("volume", "location"),
        "attach": ("volume", "location", "client"),
        "confirms": ("capability", "facts"),
    }[verb]
    return {name: given[name] for name in ("context", *wanted)}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return dict(value) if hasattr(value, "keys") else value


def _with_files(value: Any, plugin: Plugin) -> Any:
    if isinstance(value, dict):
        if set(value) == {"files"}:
            folder = files(plugin.module)
            return "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in value["files"])
        return {name: _with_files(item, plugin) for name, item in value.items()}
    return [_with_files(item, plugin) for item in value] if isinstance(value, list) else value


def _difference(actual: Any, wanted: Any) -> str:
    shown = [json.dumps(each, indent=1, sort_keys=True) for each in (actual, wanted)]
    return f"the driver answers\n{shown[0]}\nand the case expects\n{shown[1]}"
