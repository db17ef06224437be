"""Hooks of started plug-ins, drivers of enabled ones, monitor ticks."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import types
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, ConfigDict

from openqrm.domain.appliance import Appliance
from openqrm.domain.errors import ConflictError, InvalidError, UnsupportedError
from openqrm.domain.event import Event
from openqrm.domain.plugin_state import PluginPhase, PluginState
from openqrm.domain.resource import Resource
from openqrm.domain.storage import Storage
from openqrm.engine.plugins import catalogue as catalogues
from openqrm.engine.plugins.contexts import Contexts
from openqrm.engine.plugins.drivers import drivers_over
from openqrm.engine.plugins.hooks import HookFailedError, hooks_over
from openqrm.engine.plugins.monitor import Monitor
from openqrm.plugin_api.drivers import Cap, Export, Medium, Pool, StorageType
from openqrm.plugin_api.hooks import BootChange, HookSet
from openqrm.plugin_api.loading import load
from openqrm.plugin_api.plugin import Family, Plugin, Requires
from openqrm.plugin_api.steps import Call, Command, Irreversible, Run
from openqrm.plugin_api.values import Output
from openqrm.testing.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULE = "made_for_hook_tests"


class Marked(BaseModel):
    """Settings of the plug-ins under test."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    mark: str = "m"


class DirSpec(BaseModel):
    """Pool settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    directory: str = "/srv"


class NfsSpec(BaseModel):
    """Export settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    server: str = "auto"


class Driver:
    """Stands for a pool's or an export's driver."""


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    made = types.ModuleType(MODULE)
    made.Driver = Driver  # type: ignore[attr-defined]  # a module made by hand
    sys.modules[MODULE] = made
    load.cache_clear()
    yield made
    del sys.modules[MODULE]
    load.cache_clear()


def make(name: str, *needs: str, **more: Any) -> Plugin:
    values: dict[str, Any] = {"family": Family.OTHER, "title": name, "summary": name, "module": f"{MODULE}.{name}"}
    return Plugin(**(values | {"name": name, "requires": Requires(plugins=needs), "settings": Marked} | more))


class Bench:
    """A database with plug-ins in given states."""

    def __init__(self, directory: Path, *plugins: tuple[Plugin, PluginPhase]) -> None:
        self.database = MemoryDatabase()
        catalogue = catalogues.of([plugin for plugin, _ in plugins])
        installation = {"state_dir": str(directory), "address": "192.0.2.1"}
        self.contexts = Contexts(catalogue, self.database.read, installation)
        with self.database.write() as writer:
            catalogues.register(writer, catalogue)
            for plugin, phase in plugins:
                row = writer.find(PluginState, name=plugin.name)[0]
                writer.update(row, state=phase, settings={"mark": f"of-{plugin.name}"})

    def resource_steps(self) -> tuple[Any, ...]:
        with self.database.read() as reader:
            return hooks_over(self.contexts)(reader).resource("add", Resource(name="node", id=7))


def two_steps(context: Any, moment: str, resource: Resource) -> tuple[Any, ...]:
    first = Run(
        name="first", host=0, do=Command(argv=("echo", context.settings["mark"])), undo=Irreversible(reason="echo")
    )
    second = Call(
        name="second",
        function="json:dumps",
        arguments={
            "moment": moment,
            "ours": Output(step="first", field="stdout").model_dump(),
            "theirs": Output(step="elsewhere", field="stdout").model_dump(),
        },
        undo="json:loads",
    )
    return first, second


def test_steps_come_from_started_plugins_in_dependency_order_with_their_own_names_and_settings(
    module: types.ModuleType, tmp_path: Path
) -> None:
    module.hook = two_steps  # type: ignore[attr-defined]  # a module made by hand
    hooks = HookSet(resource=f"{MODULE}:hook")
    bench = Bench(
        tmp_path,
        (make("a", "z", hooks=hooks), PluginPhase.STARTED),
        (make("b", hooks=hooks), PluginPhase.ENABLED),
        (make("c"), PluginPhase.STARTED),
        (make("z", hooks=hooks), PluginPhase.STARTED),
    )
    steps = bench.resource_steps()
    assert [step.name for step in steps] == ["z-add-first", "z-add-second", "a-add-first", "a-add-second"]
    assert [step.do.argv[1] for step in steps[::2]] == ["of-z", "of-a"]
    assert steps[1].arguments["moment"] == "add"
    assert steps[1].arguments["ours"]["step"] == "z-add-first"
    assert steps[3].arguments["ours"]["step"] == "a-add-first"
    assert steps[3].arguments["theirs"]["step"] == "elsewhere"


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda *_: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda *_: None, "its steps are wrong"),
        (lambda *_: ("no step",), "its steps are wrong"),
        (lambda *_: 5, "its steps are wrong"),
        (lambda *_: (Call(name="tell", function="json:nothing", undo=Irreversible(reason="told")),), "'nothing'"),
    ],
)
def test_a_hook_that_fails_is_named_and_says_how_to_go_on(
    module: types.ModuleType, tmp_path: Path, wrong: Any, text: str
) -> None:
    module.hook = wrong  # type: ignore[attr-defined]  # a module made by hand
    bench = Bench(tmp_path, (make("a", hooks=HookSet(resource=f"{MODULE}:hook")), PluginPhase.STARTED))
    with pytest.raises(HookFailedError, match=f"plug-in a: .*{text}") as error:
        bench.resource_steps()
    assert error.value.remedy is not None
    assert "openqrm plugin stop a" in error.value.remedy


def test_a_hook_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path, (make("a", hooks=HookSet(resource="no.such.module:hook")), PluginPhase.STARTED))
    with pytest.raises(HookFailedError, match=r"plug-in a: .*ModuleNotFoundError"):
        bench.resource_steps()


def test_assign_returns_typed_changes_only(module: types.ModuleType, tmp_path: Path) -> None:
    module.hook = lambda *_: BootChange(arguments=("console=ttyS1",))  # type: ignore[attr-defined]  # by hand
    module.wrong = lambda *_: "console=ttyS1"  # type: ignore[attr-defined]  # by hand
    machine, appliance = Resource(name="node", id=7), Appliance(name="web", image_id=1, id=3)
    bench = Bench(tmp_path, (make("a", hooks=HookSet(assign=f"{MODULE}:hook")), PluginPhase.STARTED))
    with bench.database.read() as reader:
        assert hooks_over(bench.contexts)(reader).assign(machine, appliance) == (
            BootChange(arguments=("console=ttyS1",)),
        )
    bench = Bench(tmp_path, (make("a", hooks=HookSet(assign=f"{MODULE}:wrong")), PluginPhase.STARTED))
    with bench.database.read() as reader, pytest.raises(HookFailedError, match="str, not a BootChange"):
        hooks_over(bench.contexts)(reader).assign(machine, appliance)


STORES = make(
    "stores",
    provides=(
        Pool("dir", Medium.TREE, frozenset({Cap.CLONE}), f"{MODULE}:Driver", DirSpec),
        Export("nfs", Medium.TREE, "nfs-root", frozenset({Cap.AUTHORIZE}), f"{MODULE}:Driver", NfsSpec),
        StorageType("dir-nfs", "Directory", "dir", "nfs"),
    ),
)


def storage(**changes: Any) -> Storage:
    return Storage(**({"name": "one", "type": "dir-nfs", "resource_id": 1, "id": 1} | changes))


def test_drivers_of_a_disabled_plugin_are_refused_with_the_remedy(module: types.ModuleType, tmp_path: Path) -> None:
    del module
    bench = Bench(tmp_path, (STORES, PluginPhase.DISABLED))
    with bench.database.read() as reader, pytest.raises(UnsupportedError) as error:
        drivers_over(bench.contexts)(reader).pool(storage())
    assert error.value.remedy == "openqrm plugin init stores"


def test_drivers_capabilities_and_context_of_an_enabled_type(module: types.ModuleType, tmp_path: Path) -> None:
    del module
    bench = Bench(tmp_path, (STORES, PluginPhase.ENABLED))
    with bench.database.write() as writer:
        host = writer.insert(Resource(name="host", address="192.0.2.7"))
        bare = writer.insert(Resource(name="bare"))
        writer.insert(Resource(name="server", id=0))
        drivers = drivers_over(bench.contexts)(writer)
        assert isinstance(drivers.pool(storage()), Driver)
        assert isinstance(drivers.export(storage()), Driver)
        drivers.require(storage(), Cap.CLONE)
        drivers.require(storage(), Cap.AUTHORIZE)
        with pytest.raises(UnsupportedError, match="cannot snapshot"):
            drivers.require(storage(), Cap.SNAPSHOT)
        context = drivers.context(storage(resource_id=host.id, settings={"directory": "/data"}), writer)
        assert (context.host, context.address) == (host.id, "192.0.2.7")
        assert (context.pool, context.export) == (DirSpec(directory="/data"), NfsSpec())
        assert drivers.context(storage(resource_id=0), writer).address == "192.0.2.1"
        with pytest.raises(ConflictError, match="bare has no address"):
            drivers.context(storage(resource_id=bare.id), writer)
        for settings, field in (({"nope": 1}, "settings.nope"), ({"server": 5}, "settings.server")):
            with pytest.raises(InvalidError) as error:
                drivers.context(storage(resource_id=host.id, settings=settings), writer)
            assert error.value.field == field
        with pytest.raises(UnsupportedError, match="no storage type other"):
            drivers.pool(storage(type="other"))


async def test_a_slow_or_blocking_monitor_hook_delays_nobody_and_is_not_called_twice_at_once(
    module: types.ModuleType, tmp_path: Path
) -> None:
    calls: dict[str, int] = {"quick": 0, "slow": 0, "blocking": 0}
    release = threading.Event()

    async def quick(context: Any, now: Any) -> None:
        assert context.settings["mark"] == "of-quick"
        calls["quick"] += 1

    async def slow(context: Any, now: Any) -> None:
        calls["slow"] += 1
        await asyncio.sleep(1000)

    async def blocking(context: Any, now: Any) -> None:
        calls["blocking"] += 1
        release.wait(20)

    for hook in (quick, slow, blocking):
        setattr(module, hook.__name__, hook)
    plugins = [(make(name, hooks=HookSet(monitor=f"{MODULE}:{name}")), PluginPhase.STARTED) for name in calls]
    bench = Bench(tmp_path, *plugins)
    monitor = Monitor(bench.contexts, bench.database, every=0.05, timeout=0.3)
    began = time.monotonic()
    task = asyncio.create_task(monitor.run())
    try:
        while calls["quick"] < 5:
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.01)
        assert calls["blocking"] == 1
        while "slow" not in monitor.last:
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.01)
    finally:
        release.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await monitor.finish()
    assert "not done after" in monitor.last["slow"].error
    assert monitor.last["quick"].error == ""


async def test_a_failing_monitor_hook_is_one_event_until_it_fails_otherwise(
    module: types.ModuleType, tmp_path: Path
) -> None:
    async def failing(context: Any, now: Any) -> None:
        raise ValueError("cannot reach it")

    module.failing = failing  # type: ignore[attr-defined]  # a module made by hand
    bench = Bench(tmp_path, (make("a", hooks=HookSet(monitor=f"{MODULE}:failing")), PluginPhase.STARTED))
    monitor = Monitor(bench.contexts, bench.database)
    for _ in range(3):
        await monitor.tick()
        await monitor.finish()
    with bench.database.read() as reader:
        texts = [event.text for event in reader.find(Event, source="a")]
    assert texts == ["monitoring by plug-in a failed: ValueError: cannot reach it"]
