"""Case files of storage drivers: a specification and facts in, the exact steps out. No mock, no host.

A case is a JSON object:

- What is asked: `type` (a storage type that the plug-in names), or `pool`, `export` or both (names of what the plug-in
  or `others` provide). A half that none of them provides has no settings here and cannot be called.
- `call`: `pool.create`, `.remove`, `.clone`, `.fill`, `.snapshot`, `.resize`, `.entries`, `.leftovers`, `.location`,
  `export.authorize`, `.revoke`, `.withdraw`, `.grants`, `.attach`, `.root_device`, `.lend`, `.reclaim`, `.lent`,
  `.san`, or `pool.confirms` and `export.confirms`.
- `settings`: of the storage. `address`: of its host, which is resource 5. `volume`, `source`: fields of volumes.
  `location`: where the volume is; needed when the pool is not given. `client` (its `secrets`: key in the store by
  name), `generation`, `archive`, `size_mb`, `grant` (fields of a `Grant`), `capability`: as the call needs.
- `facts`: by name of the fact, what the host printed; null: the status that means absent.
- Expected, one of: `steps` or `result` (all fields that are not at their default), or `error` (its code, and a part of
  its text as `contains`).

In expected steps `{"files": [...]}` stands for the content of files of the plug-in, one after the other, and
`{"key": "..."}` for a secret.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from openqrm.domain.errors import OpenqrmError
from openqrm.domain.storage import Storage, Volume
from openqrm.plugin_api.drivers import Cap, Client, Export, Grant, NoSettings, Pool, StorageContext, StorageType
from openqrm.plugin_api.facts import Fact, Facts
from openqrm.plugin_api.loading import load
from openqrm.plugin_api.scripts import script
from openqrm.plugin_api.steps import Plan
from openqrm.plugin_api.values import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pydantic import BaseModel

    from openqrm.plugin_api.plugin import Plugin

T = TypeVar("T", Pool, Export)
HOST = 5
ADDRESS = "192.0.2.5"
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "create": ("volume", "facts"),
    "remove": ("volume", "facts"),
    "clone": ("source", "volume", "facts"),
    "fill": ("volume", "archive", "facts"),
    "snapshot": ("source", "volume", "facts"),
    "resize": ("volume", "size_mb", "facts"),
    "authorize": ("volume", "location", "client", "generation", "facts"),
    "revoke": ("volume", "location", "client", "generation", "facts"),
    "withdraw": ("grant", "facts"),
    "lend": ("volume", "location", "client", "facts"),
    "reclaim": ("volume", "location", "client", "facts"),
    "entries": ("facts",),
    "leftovers": ("facts",),
    "grants": ("facts",),
    "location": ("volume",),
    "root_device": ("volume", "location"),
    "attach": ("volume", "location", "client"),
    "lent": ("volume", "location", "client"),
    "san": ("volume", "location", "client"),
    "confirms": ("capability", "facts"),
}
_CHANGING = frozenset(list(_ARGUMENTS)[:11])
"""The verbs that answer with steps."""


def load_cases(directory: Path) -> dict[str, dict[str, Any]]:
    """All cases below a directory by file name. ValueError when there is none."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.json"))}
    if not found:
        raise ValueError(f"there is no case in {directory}")
    return found


def check_case(plugin: Plugin, case: dict[str, Any], *, others: tuple[Plugin, ...] = ()) -> None:
    """AssertionError with both sides when the driver answers something else.

    `others` are plug-ins that halves are taken from which this one does not provide.
    """
    expected = {name: case[name] for name in ("steps", "result", "error") if name in case}
    assert len(expected) == 1, "a case expects one of: steps, result, error"  # noqa: S101
    actual = run_case(plugin, case, others=others)
    if "error" in actual and "error" in expected:
        expected = {"error": dict(expected["error"])}
        part = expected["error"].pop("contains", "")
        text = " ".join(actual["error"].pop(name, "") for name in ("detail", "remedy", "field"))
        assert part in text, f"{part!r} is not in {text!r}"  # noqa: S101
    wanted = _with_files(expected, plugin)
    assert actual == wanted, _difference(actual, wanted)  # noqa: S101


def case_test(plugin: Plugin, directory: Path, *, others: tuple[Plugin, ...] = ()) -> Callable[[dict[str, Any]], None]:
    """A test of every case file in a directory, to be named `test_...` in a test module."""
    cases = load_cases(directory)

    def test_case(case: dict[str, Any]) -> None:
        check_case(plugin, case, others=others)

    marked: Callable[[dict[str, Any]], None] = pytest.mark.parametrize("case", cases.values(), ids=cases.keys())(
        test_case
    )
    return marked


def run_case(plugin: Plugin, case: dict[str, Any], *, others: tuple[Plugin, ...] = ()) -> dict[str, Any]:
    """What the driver answers, in the form of a case's expectation."""
    side, _, verb = case["call"].partition(".")
    context, drivers = _context((plugin, *others), case)
    driver = drivers[side]
    facts = _facts(driver.facts(context), case.get("facts", {}))
    try:
        answer = getattr(driver, verb)(**_arguments(verb, case, context, drivers, facts))
    except OpenqrmError as error:
        return {"error": error.as_dict()}
    if verb in _CHANGING:
        plan = Plan(steps=tuple(answer))  # which refuses two steps of one name
        dumped = [{"kind": step.kind, **step.model_dump(mode="json", exclude_defaults=True)} for step in plan.steps]
        return {"steps": dumped}
    return {"result": _plain(answer)}


def _context(plugins: tuple[Plugin, ...], case: dict[str, Any]) -> tuple[StorageContext, dict[str, Any]]:
    name, names = case.get("type", ""), (case.get("pool", ""), case.get("export", ""))
    if name:
        provided = [one for plugin in plugins for one in plugin.provides]
        kind = next(one for one in provided if isinstance(one, StorageType) and one.name == name)
        names = (kind.pool, kind.export)
    pool, export = _provided(plugins, Pool, names[0]), provided_export(plugins, names[1])
    settings = case.get("settings", {})
    storage = Storage(id=1, name="store", type=name or "-".join(filter(None, names)), resource_id=HOST)
    storage = storage.model_copy(update={"settings": settings})
    specs = [_spec(side, settings) for side in (pool, export)]
    drivers = {"pool": pool, "export": export}
    context = StorageContext(storage, HOST, case.get("address", ADDRESS), specs[0], specs[1])
    return context, {what: load(side.driver)() for what, side in drivers.items() if side is not None and side.driver}


def _provided(plugins: Iterable[Plugin], kind: type[T], name: str) -> T | None:
    provided = [one for plugin in plugins for one in plugin.provides]
    return next((one for one in provided if isinstance(one, kind) and one.name == name), None)


def provided_export(plugins: tuple[Plugin, ...], name: str) -> Export | None:
    """An export by name; one that goes through another has that one's driver, settings and secrets."""
    export = _provided(plugins, Export, name)
    base = _provided(plugins, Export, export.through) if export is not None and export.through else None
    if export is None or base is None:
        return export
    capabilities = base.capabilities | export.capabilities
    return replace(export, driver=base.driver, spec=base.spec, secrets=base.secrets, capabilities=capabilities)


def provided_pool(plugins: tuple[Plugin, ...], name: str) -> Pool | None:
    """A pool by name."""
    return _provided(plugins, Pool, name)


def _spec(side: Pool | Export | None, settings: dict[str, Any]) -> BaseModel:
    if side is None:
        return NoSettings()
    return side.spec(**{name: value for name, value in settings.items() if name in side.spec.model_fields})


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
        if "location" not in case and "pool" in drivers:
            given["location"] = drivers["pool"].location(context, given["volume"])
    if "source" in case:
        given["source"] = Volume(storage_id=1, **case["source"])
    if "client" in case:
        secrets = {name: Secret(key=key) for name, key in case["client"].get("secrets", {}).items()}
        given["client"] = Client(**case["client"] | {"secrets": secrets})
    if "grant" in case:
        given["grant"] = Grant(**case["grant"])
    if "capability" in case:
        given["capability"] = Cap(case["capability"])
    given |= {name: case[name] for name in ("generation", "archive", "size_mb", "location") if name in case}
    return {name: given[name] for name in ("context", *_ARGUMENTS[verb])}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        defaults = {each.name: each.default for each in fields(value)}
        return {name: item for name, item in asdict(value).items() if item != defaults[name]}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return dict(value) if hasattr(value, "keys") else value


def _with_files(value: Any, plugin: Plugin) -> Any:
    if isinstance(value, dict):
        if set(value) == {"files"}:
            return script(plugin.module, *value["files"])
        return {name: _with_files(item, plugin) for name, item in value.items()}
    return [_with_files(item, plugin) for item in value] if isinstance(value, list) else value


def _difference(actual: Any, wanted: Any) -> str:
    shown = [json.dumps(each, indent=1, sort_keys=True) for each in (actual, wanted)]
    return f"the driver answers\n{shown[0]}\nand the case expects\n{shown[1]}"
