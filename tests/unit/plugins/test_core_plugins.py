"""The operations on plug-ins, and waiting for their services."""

from __future__ import annotations

import asyncio
import json
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, ConfigDict

from openqrm.domain.errors import CommandFailedError, ConflictError, InvalidError, MissingDependencyError
from openqrm.domain.plugin_state import PluginPhase, PluginState
from openqrm.domain.resource import Resource
from openqrm.domain.storage import Storage
from openqrm.domain.user import SYSTEM, Actor, UserRole
from openqrm.engine.plugins import catalogue as catalogues
from openqrm.operations import core_plugins
from openqrm.operations.core_plugins import OPERATIONS, ConfigureArguments
from openqrm.plugin_api.calls import CallContext
from openqrm.plugin_api.drivers import Export, Medium, Pool, StorageType
from openqrm.plugin_api.loading import load
from openqrm.plugin_api.operation import Arguments, Call
from openqrm.plugin_api.plugin import Dependency, Family, Plugin, Requires, Service
from openqrm.testing.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openqrm.domain.model import Record

MODULE = "made_for_core_plugins"


class Settings(BaseModel):
    """Settings of the plug-in under test."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int = 1
    word: str = "w"


BASE = Plugin(
    name="base",
    family=Family.STORAGE,
    title="Base",
    summary="s",
    module=MODULE,
    settings=Settings,
    init=f"{MODULE}:init",
    uninstall=f"{MODULE}:uninstall",
    services=(Service("server", f"{MODULE}:prepare"),),
    provides=(
        Pool("dir", Medium.TREE, frozenset(), "x:X"),
        Export("nfs", Medium.TREE, "nfs-root", frozenset(), "x:X"),
        StorageType("dir-nfs", "D", "dir", "nfs"),
    ),
)
TOP = Plugin(
    name="top", family=Family.OTHER, title="Top", summary="s", module=f"{MODULE}.top", requires=Requires(("base",))
)
LACKING = Plugin(
    name="lacking",
    family=Family.OTHER,
    title="Lacking",
    summary="s",
    module=f"{MODULE}.lacking",
    requires=Requires(commands=(Dependency("no-such-command", "nothing"),)),
)


@pytest.fixture
def called() -> Iterator[list[Any]]:
    made, calls = types.ModuleType(MODULE), []
    made.init = lambda writer, settings: calls.append(("init", settings.size))  # type: ignore[attr-defined]  # by hand
    made.uninstall = lambda writer, settings: calls.append(("uninstall", settings.size))  # type: ignore[attr-defined]  # by hand
    sys.modules[MODULE] = made
    load.cache_clear()
    yield calls
    del sys.modules[MODULE]
    load.cache_clear()


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> MemoryDatabase:
    catalogue = catalogues.of([BASE, TOP, LACKING])
    monkeypatch.setattr(core_plugins, "installed", lambda: catalogue)
    made = MemoryDatabase()
    with made.write() as writer:
        catalogues.register(writer, catalogue)
    return made


def act(database: MemoryDatabase, name: str, verb: str, **settings: Any) -> PluginState:
    """Call an act operation as the pipeline would."""
    arguments = ConfigureArguments(settings=settings) if verb == "configure" else Arguments()
    declared = next(one for one in OPERATIONS if one.name == f"plugin.{verb}")
    assert declared.act is not None
    with database.write() as writer:
        row = writer.find(PluginState, name=name)[0]
        found: PluginState = load(declared.act)(writer, Call(declared.name, SYSTEM, row, arguments))
    return found


def admitted(database: MemoryDatabase, name: str, verb: str) -> dict[str, Any]:
    """The change that start or stop makes at once."""
    declared = next(one for one in OPERATIONS if one.name == f"plugin.{verb}")
    assert declared.admit is not None
    with database.write() as writer:
        row = writer.find(PluginState, name=name)[0]
        (step,) = load(declared.admit)(writer, Call(declared.name, SYSTEM, row, Arguments())).steps
        writer.update(row, state=PluginPhase.STARTED if verb == "start" else PluginPhase.ENABLED)
    arguments: dict[str, Any] = step.arguments
    return arguments


def test_a_plugin_s_life(database: MemoryDatabase, called: list[Any]) -> None:
    row = act(database, "base", "init")
    assert (row.state, row.settings) == (PluginPhase.ENABLED, {"size": 1, "word": "w"})
    assert act(database, "base", "configure", size=5).settings == {"size": 5, "word": "w"}
    assert act(database, "base", "configure", word="x", size=None).settings == {"size": 1, "word": "x"}
    assert admitted(database, "base", "start")["event"] == "start"
    assert admitted(database, "base", "stop")["event"] == "stop"
    act(database, "base", "configure", size=7)
    row = act(database, "base", "uninstall")
    assert (row.state, row.settings) == (PluginPhase.DISABLED, {"size": 1, "word": "w"})
    assert called == [("init", 1), ("uninstall", 7)]


def test_wrong_settings_name_the_field_and_change_nothing(database: MemoryDatabase) -> None:
    for settings, field in (({"size": "big"}, "settings.size"), ({"other": 1}, "settings.other")):
        with pytest.raises(InvalidError) as error:
            act(database, "base", "configure", **settings)
        assert error.value.field == field
    with database.read() as reader:
        assert reader.find(PluginState, name="base")[0].settings == {"size": 1, "word": "w"}


def test_what_is_missing_is_told_before_anything_changes(database: MemoryDatabase, called: list[Any]) -> None:
    with pytest.raises(MissingDependencyError, match="no-such-command"):
        act(database, "lacking", "init")
    with pytest.raises(MissingDependencyError, match="base enabled first"):
        act(database, "top", "init")
    act(database, "base", "init")
    act(database, "top", "init")
    with pytest.raises(MissingDependencyError, match="base started first"):
        admitted(database, "top", "start")
    with pytest.raises(ConflictError, match="top needs base"):
        act(database, "base", "uninstall")
    admitted(database, "base", "start")
    admitted(database, "top", "start")
    with pytest.raises(ConflictError, match="top needs base"):
        admitted(database, "base", "stop")
    assert called == [("init", 1)]


def test_one_whose_storage_type_is_used_cannot_be_uninstalled(database: MemoryDatabase, called: list[Any]) -> None:
    act(database, "base", "init")
    with database.write() as writer:
        host = writer.insert(Resource(name="host"))
        writer.insert(Storage(name="store", type="dir-nfs", resource_id=host.id))
    with pytest.raises(ConflictError, match="storage store uses"):
        act(database, "base", "uninstall")
    assert called == [("init", 1)]


def test_only_administrators_enable_disable_and_configure() -> None:
    operator, viewer = Actor("o", UserRole.OPERATOR), Actor("v", UserRole.VIEWER)
    row: Record = PluginState(name="base", family="other")
    for one in OPERATIONS:
        runs = one.verb in {"start", "stop"}
        assert one.permission(operator, one.name, row) is runs
        assert not one.permission(viewer, one.name, row)
        assert one.permission(SYSTEM, one.name, row)


async def test_starting_waits_for_services_and_fails_with_what_one_said(
    database: MemoryDatabase, tmp_path: Path
) -> None:
    file = tmp_path / "plugins" / "services.json"
    file.parent.mkdir()
    context = CallContext(1, "s", 1, database.read, tmp_path, {}, {"state_dir": str(tmp_path)})

    def status(state: str, plugin: str = "base") -> None:
        file.write_text(json.dumps([{"plugin": plugin, "service": "server", "state": state, "error": "port in use"}]))

    up = asyncio.create_task(core_plugins.services_up(context, plugin="base", services=["server"]))
    for state in ("", "starting", "other"):
        if state:
            status("running" if state == "other" else state, plugin=state if state == "other" else "base")
        await asyncio.sleep(0.3)
        assert not up.done()
    status("running")
    assert await asyncio.wait_for(up, 5) == {"services": ["server"]}
    status("waiting")
    with pytest.raises(CommandFailedError) as error:
        await core_plugins.services_up(context, plugin="base", services=["server"])
    assert error.value.output == "port in use"
    down = asyncio.create_task(core_plugins.services_down(context, plugin="base", services=["server"]))
    await asyncio.sleep(0.3)
    assert not down.done()
    file.write_text("[]")
    assert await asyncio.wait_for(down, 5) == {"services": ["server"]}
