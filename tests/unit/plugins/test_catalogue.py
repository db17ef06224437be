"""Discovery, dependencies, merged declarations."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from openqrm.domain.errors import ConflictError, InvalidError, MissingDependencyError, NotFoundError
from openqrm.domain.event import Event
from openqrm.domain.plugin_state import PluginPhase, PluginState
from openqrm.engine.plugins import catalogue as catalogues
from openqrm.operations.core_plugins import without_clashes
from openqrm.plugin_api.drivers import Cap, Export, Medium, Pool, StorageType
from openqrm.plugin_api.operation import Operation
from openqrm.plugin_api.plugin import Dependency, Family, NodeFile, Plugin, Requires
from openqrm.testing.memory import MemoryDatabase

if TYPE_CHECKING:
    from pathlib import Path


def plugin(name: str, *needs: str, provides: tuple[Pool | Export | StorageType, ...] = (), **more: object) -> Plugin:
    values = {"family": Family.OTHER, "title": name, "summary": name, "module": f"made.{name}"} | more
    return Plugin(name=name, requires=Requires(plugins=needs), provides=provides, **values)  # type: ignore[arg-type]  # a test's shorthand


DIR = Pool("dir", Medium.TREE, frozenset({Cap.CLONE}), "x:X")
LVM = Pool("lvm", Medium.BLOCK, frozenset(), "x:X")
NFS = Export("nfs", Medium.TREE, "nfs-root", frozenset({Cap.AUTHORIZE}), "x:X")


def names(catalogue: catalogues.Catalogue) -> list[str]:
    return [one.name for one in catalogue.plugins]


def test_dependencies_come_first() -> None:
    made = catalogues.of([plugin("a", "c"), plugin("b"), plugin("c", "d"), plugin("d")])
    assert names(made) == ["b", "d", "c", "a"]


def test_a_circle_and_what_hangs_on_it_are_left_out_and_the_rest_stays() -> None:
    made = catalogues.of([plugin("a", "b"), plugin("b", "a"), plugin("c", "a"), plugin("d")])
    assert names(made) == ["d"]
    assert {one.name for one in made.broken} == {"a", "b", "c"}
    assert "a, b, c" in made.broken[0].reason
    with pytest.raises(NotFoundError, match="circle"):
        made.get("a")


def test_a_name_is_taken_once() -> None:
    made = catalogues.of([plugin("a"), plugin("a", title="other")])
    assert names(made) == ["a"]
    assert "taken" in made.broken[0].reason


def test_a_pool_is_provided_once() -> None:
    made = catalogues.of([plugin("a", provides=(DIR,)), plugin("b", provides=(DIR,))])
    assert names(made) == ["a"]
    assert made.broken[0].reason == "pool dir is already provided by a"


@pytest.mark.parametrize(
    ("provides", "needs", "reason"),
    [
        ((StorageType("t", "T", "nowhere", "nfs"),), ("base",), "pool nowhere, which no plug-in provides"),
        ((StorageType("t", "T", "dir", "nfs"),), (), "of base, which the plug-in does not require"),
        ((LVM, StorageType("t", "T", "lvm", "nfs")), ("base",), "cannot join pool lvm (block) with export nfs (tree)"),
    ],
)
def test_a_storage_type_that_cannot_be_leaves_its_plugin_out(
    provides: tuple[Pool | StorageType, ...], needs: tuple[str, ...], reason: str
) -> None:
    made = catalogues.of([plugin("base", provides=(DIR, NFS)), plugin("joins", *needs, provides=provides)])
    assert names(made) == ["base"]
    assert reason in made.broken[0].reason


def test_a_storage_type_may_join_what_a_required_plugin_provides() -> None:
    made = catalogues.of(
        [plugin("z", "base", provides=(StorageType("t", "T", "dir", "nfs"),)), plugin("base", provides=(DIR, NFS))]
    )
    assert not made.broken
    assert list(made.declared.types) == ["t"]


def test_one_that_loses_its_base_is_left_out_too() -> None:
    first, second = plugin("a", provides=(DIR, NFS)), plugin("b", provides=(DIR, NFS))
    third = plugin("c", "b", provides=(StorageType("t", "T", "dir", "nfs"),))
    made = catalogues.of([first, second, third])
    assert names(made) == ["a"]
    assert {one.name for one in made.broken} == {"b", "c"}


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed distribution with four entry points, of which one works; returns the group."""
    (tmp_path / "thirdparty.py").write_text(
        "from openqrm.plugin_api.plugin import Family, Plugin\n"
        "GOOD = Plugin(name='good', family=Family.OTHER, title='Good', summary='s', module='thirdparty')\n"
        "NOT = 12\n"
    )
    (tmp_path / "raising.py").write_text("raise RuntimeError('no licence')\n")
    information = tmp_path / "thirdparty-1.2.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdparty\nVersion: 1.2\n")
    (information / "entry_points.txt").write_text(
        "[made.for.this.test]\ngood = thirdparty:GOOD\nnot = thirdparty:NOT\nother-name = thirdparty:GOOD\n"
        "raising = raising:PLUGIN\nabsent = thirdparty:ABSENT\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("thirdparty", "raising"):
        sys.modules.pop(name, None)
    return "made.for.this.test"


def test_broken_distributions_are_findings_and_the_good_one_is_used(distribution: str) -> None:
    made = catalogues.discover(distribution)
    assert names(made) == ["good"]
    assert {one.name: one.reason for one in made.broken} == {
        "absent": "it cannot be imported: AttributeError: module 'thirdparty' has no attribute 'ABSENT'",
        "not": "it is int, not a Plugin",
        "other-name": "it is registered as other-name but named good",
        "raising": "it cannot be imported: RuntimeError: no licence",
    }
    assert made.broken[0].origin.startswith("thirdparty 1.2: ")


def test_registering_makes_one_row_each_and_logs_the_broken(distribution: str) -> None:
    made, database = catalogues.discover(distribution), MemoryDatabase()
    for _ in range(2):
        with database.write() as writer:
            catalogues.register(writer, made)
    with database.read() as reader:
        rows = reader.find(PluginState)
        texts = {event.text for event in reader.find(Event, source="plugins")}
    assert [(row.name, row.family, row.state) for row in rows] == [("good", "other", PluginPhase.DISABLED)]
    assert any("no licence" in text for text in texts)


def test_one_that_is_enabled_and_gone_is_logged() -> None:
    database = MemoryDatabase()
    with database.write() as writer:
        writer.insert(PluginState(name="gone", family="other", state=PluginPhase.STARTED))
        catalogues.register(writer, catalogues.of([]))
    with database.read() as reader:
        assert "not installed any more" in reader.find(Event)[0].text


def test_a_clash_of_operations_leaves_the_later_plugin_out() -> None:
    ours = Operation(name="plugin.init", title="t", summary="s", act="x:y")
    twice = (Operation(name="one.go", title="t", summary="s", act="x:y"),)
    bad = Operation(name="One.Go", title="t", summary="s", act="x:y")
    made = without_clashes(
        catalogues.of(
            [
                plugin("a", operations=(ours,)),
                plugin("b", operations=twice),
                plugin("c", operations=twice),
                plugin("d", operations=(bad,)),
            ]
        )
    )
    assert names(made) == ["b"]
    reasons = {one.name: one.reason for one in made.broken}
    assert reasons["a"] == "operation plugin.init is already declared by the core"
    assert reasons["c"] == "operation one.go is already declared by b"
    assert "lower case" in reasons["d"]


def test_missing_commands_are_named_with_what_installs_them(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    needs = Requires(
        commands=(
            Dependency("sh", "dash"),
            Dependency(str(tmp_path / "there"), "a"),
            Dependency(str(tmp_path / "absent"), "zebra"),
            Dependency("no-such-command", "apple"),
        )
    )
    one = Plugin(name="a", family=Family.OTHER, title="A", summary="s", module="m", requires=needs)
    with pytest.raises(MissingDependencyError, match="no-such-command") as error:
        catalogues.of([one]).check_commands(one)
    assert error.value.remedy == "apt-get install -y --no-install-recommends apple zebra"


def test_programs_that_machines_fetch_are_on_the_server() -> None:
    """Else machines would fail when they boot."""
    programs = (Dependency("sh", "dash"), Dependency("no-such-program", "apple"))
    one = Plugin(name="a", family=Family.OTHER, title="A", summary="s", module="m", node_programs=programs)
    with pytest.raises(MissingDependencyError, match="no-such-program, not found on this server") as error:
        catalogues.of([one]).check_commands(one)
    assert error.value.remedy == "apt-get install -y --no-install-recommends apple"


def test_plugins_that_need_each_other_are_enabled_in_order_and_disabled_in_reverse() -> None:
    base, top = plugin("base"), plugin("top", "base", "absent")
    made, database = catalogues.of([base, top]), MemoryDatabase()
    with database.write() as writer:
        catalogues.register(writer, made)
        with pytest.raises(MissingDependencyError) as error:
            made.check_before(top, writer, PluginPhase.ENABLED)
        assert error.value.remedy == "openqrm plugin init base"
        writer.update(writer.find(PluginState, name="top")[0], state=PluginPhase.ENABLED)
        with pytest.raises(ConflictError) as conflict:
            made.check_after(base, writer, PluginPhase.ENABLED)
        assert conflict.value.remedy == "openqrm plugin uninstall top"
        made.check_after(base, writer, PluginPhase.STARTED)


def test_the_owner_of_a_function_is_found_by_its_module() -> None:
    made = catalogues.of([plugin("a", module="made.a"), plugin("ab", module="made.a.b")])
    found = {ref: made.owner(ref) for ref in ("made.a.x:f", "made.a.b.c:f", "made.ab:f", "openqrm.x:f")}
    assert {ref: one and one.name for ref, one in found.items()} == {
        "made.a.x:f": "a",
        "made.a.b.c:f": "ab",
        "made.ab:f": None,
        "openqrm.x:f": None,
    }


def test_node_files_come_from_enabled_plugins_only() -> None:
    one = Plugin(
        name="one",
        family=Family.OTHER,
        title="One",
        summary="s",
        module="openqrm.plugins.network.dhcpd",
        node_files=(NodeFile("root-mount.x", "plugin.py"),),
    )
    made, database = catalogues.of([one]), MemoryDatabase()
    with database.write() as writer:
        catalogues.register(writer, made)
        assert made.node_file(writer, "root-mount.x") is None
        writer.update(writer.find(PluginState)[0], state=PluginPhase.ENABLED)
        found = made.node_file(writer, "root-mount.x")
        assert found is not None
        assert found.is_file()
        assert made.node_file(writer, "root-mount.y") is None


def test_settings_are_checked_by_name() -> None:
    dhcpd = catalogues.discover().get("dhcpd")
    with pytest.raises(InvalidError) as error:
        catalogues.settings_of(dhcpd, {"discovery_seconds": 1})
    assert error.value.field == "settings.discovery_seconds"


def test_the_built_in_plugins_are_all_found() -> None:
    made = catalogues.discover()
    assert {"dhcpd", "nfs-storage", "tftpd"} <= set(names(made))
    assert not made.broken


def test_rows_say_what_plugins_provide_and_follow_what_is_installed() -> None:
    database = MemoryDatabase()
    nfs = plugin("nfs", provides=(NFS,))
    for installed, types in (
        ([nfs], {}),
        ([nfs, plugin("base", provides=(DIR,))], {"dir-nfs": ["authorize", "clone"]}),
    ):
        with database.write() as writer:
            catalogues.register(writer, catalogues.of(installed))
            row = writer.one(PluginState, name="nfs")
        assert row is not None
        assert row.provides["exports"] == {"nfs": ["authorize"]}
        assert row.provides.get("storage_types", {}) == types
