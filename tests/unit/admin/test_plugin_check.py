"""`openqrm plugin check`: each validator finds the fault it is there for, and the plug-ins of this tree have none."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import pytest
from pydantic import BaseModel

from openqrm.admin import plugin_check, plugin_scaffold, plugins
from openqrm.admin.plugin_check import shell
from openqrm.domain.model import Attr, Entity, Name, Record
from openqrm.engine.plugins import catalogue as catalogues
from openqrm.operations.core_plugins import installed
from openqrm.plugin_api.drivers import Cap, Export, Medium, NoSettings, Pool, Start
from openqrm.plugin_api.hooks import HookSet
from openqrm.plugin_api.loading import load
from openqrm.plugin_api.operation import Operation
from openqrm.plugin_api.plugin import BootService, Family, NodeFile, Plugin, Requires, Service
from openqrm.store import migrations
from openqrm.testing import needs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HELLO, SHELF = "openqrm_say_hello", "openqrm_shelf"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Family], Plugin]]:
    """Makes a plug-in and imports it."""

    def make(name: str, family: Family) -> Plugin:
        layout = plugin_scaffold.of_its_own(name, tmp_path / name)
        plugin_scaffold.new(name, family, layout)
        monkeypatch.syspath_prepend(str(tmp_path / name / "src"))
        load.cache_clear()
        found = importlib.import_module(f"{layout.module}.plugin").PLUGIN
        assert isinstance(found, Plugin)
        return found

    yield make
    load.cache_clear()
    for name in [name for name in sys.modules if name.startswith((HELLO, SHELF))]:
        del sys.modules[name]


@pytest.fixture
def hello(make: Callable[[str, Family], Plugin]) -> Plugin:
    """A plug-in with a hook."""
    return make("say-hello", Family.MONITORING)


@pytest.fixture
def shelf(make: Callable[[str, Family], Plugin]) -> Plugin:
    """A plug-in with a pool."""
    return make("shelf-storage", Family.STORAGE)


def wrong(plugin: Plugin, *beside: Plugin) -> str:
    return "\n".join(plugin_check.faults(plugin, catalogues.of([plugin, *beside])))


def code_of(plugin: Plugin) -> Path:
    return Path(str(sys.modules[plugin.module].__file__)).parent


def test_all_plugins_of_this_installation_pass(capsys: pytest.CaptureFixture[str]) -> None:
    """What CI runs over all of them."""
    status = plugins.main(["check"])
    shown = capsys.readouterr().out
    assert status == 0, shown
    for name in ("nfs-storage", "dhcpd", "tftpd"):
        assert f"{name}: ok" in shown
    assert re.search(r"^dir-storage: ok \(\d+ lines of Python and shell; less than 400\)$", shown, re.MULTILINE)
    servers = r"servers/ganesha \d+, servers/kernel \d+; each less than 400"
    assert re.search(rf"^nfs-storage: ok \(\d+ lines of Python and shell, {servers}\)$", shown, re.MULTILINE)
    assert "\ndhcpd: ok\n" in shown
    assert plugins.main(["check", "no-such"]) == 1


def test_new_plugins_pass(hello: Plugin, shelf: Plugin) -> None:
    for plugin in (hello, shelf):
        assert wrong(plugin) == ""
        assert plugin_check.warnings(plugin, catalogues.of([plugin])) == []


class Bare(BaseModel):
    """Settings without titles, defaults and strictness."""

    size: int


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"init": f"{HELLO}.nowhere:init"}, "init: openqrm_say_hello.nowhere:init cannot be loaded"),
        ({"init": f"{HELLO}.plugin:PLUGIN"}, "cannot be called"),
        ({"provides": (Pool("p", Medium.TREE, frozenset(), f"{HELLO}.hooks:Absent"),)}, "driver of p"),
        ({"hooks": HookSet(assign=f"{HELLO}.hooks:none")}, "hook assign"),
        ({"hooks": HookSet(appliance=f"{HELLO}.hooks:resource")}, "must take 4 arguments"),
        ({"hooks": HookSet(monitor="builtins:max")}, "must be an async function"),
        ({"services": (Service("s", f"{HELLO}.hooks:resource"),)}, "must be an async function of one argument"),
        ({"node_files": (NodeFile("root-mount.x", "absent"),)}, "there is no absent"),
        ({"boot_services": (BootService("b", "boot"),)}, "boot/start is not an executable file"),
        ({"settings": Bare}, "setting size has no Attr"),
        ({"settings": Bare}, "setting size has no default"),
        ({"settings": Bare}, "accepts unknown fields"),
        ({"operations": (Operation("A.b", "t", "s", act="x:y"),)}, "in lower case"),
        ({"requires": Requires(plugins=("absent",))}, "requires plug-in absent"),
        ({"family": Family.STORAGE, "module": "openqrm.domain"}, "no README.md"),
    ],
)
def test_faults_of_declarations(hello: Plugin, changes: dict[str, Any], fault: str) -> None:
    assert fault in wrong(replace(hello, **changes))


def test_imports_of_the_core_and_of_other_plugins(hello: Plugin, shelf: Plugin) -> None:
    code = code_of(hello)
    (code / "greedy.py").write_text(
        "from openqrm.engine import core\nimport openqrm.store.database\nfrom openqrm import api\n"
        "from openqrm_shelf import driver\n"
    )
    text = wrong(hello, shelf)
    for name in ("openqrm.engine", "openqrm.store.database", "openqrm.api"):
        assert f"greedy.py imports {name}: only" in text
    assert "greedy.py imports openqrm_shelf: plug-ins do not know each other" in text


def test_a_page_that_says_how(shelf: Plugin) -> None:
    page = code_of(shelf) / "README.md"
    page.write_text("# shelf-storage\n\nNice.\n")
    assert "no section `## How to`" in wrong(shelf)
    page.unlink()
    assert "no README.md" in wrong(shelf)


DRIVER = """
from openqrm.plugin_api.script_pool import ScriptPool

class ShelfPool(ScriptPool):
    package = "openqrm_shelf"

class Snapshots(ShelfPool):
    def snapshot(self, context, source, volume, facts):
        return ()

class OtherNames(ShelfPool):
    def create(self, context, name, facts):
        return ()

class OneMore(ShelfPool):
    def create(self, context, volume, facts, more):
        return ()

class OptionalMore(ShelfPool):
    def create(self, context, volume, facts, more=None):
        return ()

class Waits(ShelfPool):
    async def create(self, context, volume, facts):
        return ()

class Lacking:
    def facts(self, context):
        return ()
"""


def with_pool(shelf: Plugin, driver: str, *more: Cap, **changes: Any) -> Plugin:
    """The plug-in with another class as its pool's driver, and more capabilities."""
    (code_of(shelf) / "variants.py").write_text(DRIVER)
    (pool,) = shelf.provides
    assert isinstance(pool, Pool)
    capabilities = pool.capabilities | set(more)
    changed = replace(pool, driver=f"{SHELF}.variants:{driver}", **{"capabilities": capabilities, **changes})
    return replace(shelf, provides=(changed,))


@pytest.mark.parametrize(
    ("driver", "more", "fault"),
    [
        ("Snapshots", (), "its driver has snapshot(), and snapshot is not declared"),
        ("ShelfPool", (Cap.SNAPSHOT,), "declares snapshot: its driver has no method snapshot(context, source"),
        (
            "ShelfPool",
            (Cap.RESIZE,),
            "declares resize: its driver has no method resize(context, volume, size_mb, facts)",
        ),
        ("OtherNames", (), "create(context, name, facts) must be create(context, volume, facts)"),
        ("OneMore", (), "create(context, volume, facts, more) must be create(context, volume, facts)"),
        ("Waits", (), "create() must not be an async function"),
        ("Lacking", (), "pool shelf: its driver has no method leftovers(context, facts)"),
        ("ShelfPool", (Cap.AUTHORIZE,), "shelf cannot have authorize: an export can"),
    ],
)
def test_methods_and_capabilities(shelf: Plugin, driver: str, more: tuple[Cap, ...], fault: str) -> None:
    assert fault in wrong(with_pool(shelf, driver, *more))


def test_a_driver_may_take_more_that_is_optional(shelf: Plugin) -> None:
    assert "must be create" not in wrong(with_pool(shelf, "OptionalMore"))


def test_capabilities_that_need_another(shelf: Plugin) -> None:
    plugin = with_pool(shelf, "ShelfPool", capabilities=frozenset({Cap.CLONE_COW, Cap.LIST}))
    assert "shelf declares clone-cow without clone" in wrong(plugin)


def test_a_pool_without_a_place(shelf: Plugin) -> None:
    assert "NoSettings has no property place" in wrong(with_pool(shelf, "ShelfPool", spec=NoSettings))
    memory = with_pool(shelf, "ShelfPool", spec=NoSettings, medium=Medium.MACHINE)
    assert "has no property place" not in wrong(memory)


def test_exports(hello: Plugin) -> None:
    nfs = installed().get("nfs-storage")
    base = Export("shown", Medium.TREE, "shown-root", through="nfs", start=Start.SAN)
    plugin = replace(hello, requires=Requires(plugins=("nfs-storage",)), provides=(base,))
    assert "export shown starts machines by SAN: its driver has no method san(" in wrong(plugin, nfs)
    both = replace(plugin, provides=(replace(base, driver=f"{HELLO}.hooks:resource"),))
    assert "export shown goes through nfs: driver, settings and secrets are that one's" in wrong(both, nfs)
    rooted = replace(plugin, provides=(replace(base, start=Start.ROOT),))
    assert "machines find no node file root-mount.shown-root" in wrong(rooted, nfs)
    own = replace(plugin, provides=(replace(base, own_machine=True),))
    assert "its medium is machine" in wrong(own, nfs)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("import subprocess\n", "driver.py:1 imports subprocess"),
        ("from os import path\n", "driver.py:1 imports os"),
        ("import os.path\n", "imports os.path"),
        ("from random import choice\n", "imports random"),
        ("VALUE = open('/etc/passwd').read()\n", "calls open()"),
        ("from datetime import datetime\nNOW = datetime.now()\n", "driver.py:2 calls now()"),
    ],
)
def test_drivers_are_pure(shelf: Plugin, text: str, fault: str) -> None:
    module = code_of(shelf) / "driver.py"
    original = module.read_text()
    module.write_text(text + original)
    assert fault in wrong(shelf)
    # Also in a module of the plug-in that the driver imports, and not in one that it does not.
    module.write_text(original)
    (code_of(shelf) / "beside.py").write_text(text)
    assert "drivers are pure" not in wrong(shelf)
    module.write_text(f"import openqrm_shelf.beside\n{original}")
    assert fault.replace("driver.py", "beside.py") in wrong(shelf)


def test_shell_is_looked_at(shelf: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    needs.have("shellcheck")
    script = code_of(shelf) / "scripts/pool"
    script.write_text(script.read_text() + "rm -rf $nowhere/*\nif true; then\n")
    assert "scripts/pool: shellcheck: line" in wrong(shelf)
    alone = code_of(shelf) / "scripts/more"
    alone.write_text("cd /tmp || exit 1\n")
    assert "scripts/more" not in wrong(shelf)
    alone.write_text("[ $1 = ] || fi\n")
    assert "scripts/more: shellcheck: line 1" in wrong(shelf)
    monkeypatch.setattr(shell, "PROGRAM", "no-such-program")
    assert "shellcheck" not in wrong(shelf)
    assert plugin_check.warnings(shelf, catalogues.of([shelf])) == [
        "its shell was not looked at: no-such-program is not installed"
    ]


def test_hooks_of_machines_are_looked_at(shelf: Plugin) -> None:
    needs.have("shellcheck")
    hook = code_of(shelf) / "node/root-mount"
    hook.parent.mkdir()
    hook.write_text('mount_root() {\n    mount "$ROOT_DEVICE" "$1"\n}\n')
    plugin = replace(shelf, node_files=(NodeFile("root-mount.x", "node/root-mount"),))
    assert wrong(plugin) == ""
    hook.write_text('mount_root() {\n    mount "$ROOT_DEVICE "$1"\n}\n')
    assert "node/root-mount: shellcheck" in wrong(plugin)


def test_every_verb_has_a_case(shelf: Plugin, tmp_path: Path) -> None:
    cases = tmp_path / "shelf-storage/tests/cases"
    (cases / "clone.json").unlink()
    (cases / "leftovers.json").unlink()
    assert "pool shelf has no case file for: leftovers, clone" in wrong(shelf)
    case = json.loads((cases / "create.json").read_text())
    (cases / "create.json").write_text(json.dumps(case | {"pool": "another"}))
    assert "no case file for: create, leftovers, clone" in wrong(shelf)
    # Installed without its tests, there is nothing to say.
    shutil.rmtree(tmp_path / "shelf-storage/tests")
    assert wrong(shelf) == ""


def test_a_pool_says_where_its_volumes_are_in_one_place(shelf: Plugin) -> None:
    driver = code_of(shelf) / "driver.py"
    text = driver.read_text()
    driver.write_text(
        f'{text}\n    def location(self, context, volume):\n        return f"/elsewhere/{{volume.name}}"\n'
    )
    load.cache_clear()
    sys.modules.pop(f"{SHELF}.driver", None)
    assert "pool shelf: its entries() say another place than its location()" in wrong(shelf)


def test_faults_are_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for found, counted in ((["one"], "1 fault"), (["one", "two"], "2 faults")):
        monkeypatch.setattr(plugins, "faults", lambda plugin, catalogue, found=found: found)
        assert plugins.main(["check", "dhcpd"]) == 1
        assert capsys.readouterr().out == "\n  ".join((f"dhcpd: {counted}", *found)) + "\n"


def test_a_plugin_that_grew_is_named(shelf: Plugin) -> None:
    (code_of(shelf) / "scripts/long").write_text("true\n" * 400)
    (warning,) = plugin_check.warnings(shelf, catalogues.of([shelf]))
    assert warning.endswith("a storage plug-in has less than 400")


class Thing(Record):
    """An entity of a plug-in."""

    entity: ClassVar[Entity] = Entity("say-hello-thing", "say-hello-things", "Thing", "s")
    name: Annotated[Name, Attr("Name", unique=True)]


class MoreThing(Record):
    """The same with a field more."""

    entity: ClassVar[Entity] = Thing.entity
    name: Annotated[Name, Attr("Name", unique=True)]
    colour: Annotated[str, Attr("Colour", filter=True)] = ""


def test_entities(hello: Plugin) -> None:
    plugin = replace(hello, entities=(Thing,))
    assert "its revisions in migrations/ fail: plug-in say-hello has no revisions" in wrong(plugin)
    migrations.write_revision("things", plugin)
    assert wrong(plugin) == ""
    more = replace(hello, entities=(MoreThing,))
    assert "what no revision makes: openqrm database revision --plugin say-hello" in wrong(more)
    migrations.write_revision("colours", more)
    assert wrong(more) == ""
    (code_of(hello) / "migrations/0003_bad.py").write_text("no python")
    assert "its revisions in migrations/ fail" in wrong(more)
    assert "migrations/0003_bad.py is no Python" in wrong(more)
    assert "does not begin with other-" in wrong(replace(plugin, name="other"))


def test_names_that_postgresql_would_cut(hello: Plugin) -> None:
    class Long(Record):
        """A table with too long a name."""

        entity: ClassVar[Entity] = Entity("say-hello-l", f"say-hello-{'l' * 50}", "L", "s")
        name: Annotated[Name, Attr("Name", filter=True)]

    plugin = replace(hello, entities=(Long,))
    migrations.write_revision("long", plugin)
    assert "is longer than 63 characters" in wrong(plugin)
