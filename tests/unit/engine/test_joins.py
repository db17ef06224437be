"""Storage types that nobody wrote down: every pool joined with every export of its medium."""

from __future__ import annotations

from openqrm.engine.plugins.declarations import Declared, merge
from openqrm.plugin_api.drivers import Cap, Export, Medium, NoSettings, Pool, Start, StorageType
from openqrm.plugin_api.plugin import Family, Plugin, Requires

TREE, BLOCK, MACHINE = Medium.TREE, Medium.BLOCK, Medium.MACHINE


def pool(name: str, medium: Medium, prefix: str = "") -> Pool:
    return Pool(name, medium, frozenset({Cap.CLONE}), "some.module:Pool", prefix=prefix)


def export(name: str, medium: Medium) -> Export:
    return Export(name, medium, f"{name}-root", frozenset({Cap.AUTHORIZE}), f"some.module:{name}", secrets=("key",))


def plugin(name: str, *provides: Pool | Export | StorageType, needs: tuple[str, ...] = ()) -> Plugin:
    return Plugin(name, Family.STORAGE, name.title(), "", "some.module", provides, requires=Requires(plugins=needs))


def joined(*plugins: Plugin) -> Declared:
    declared, broken = merge((one.name, one) for one in plugins)
    assert not broken
    return declared


def reasons(*plugins: Plugin) -> dict[str, str]:
    _, broken = merge((one.name, one) for one in plugins)
    return {one.name: one.reason for one in broken}


NFS = plugin("nfs", pool("dir", TREE), export("nfs", TREE), StorageType("nfs-storage", "NFS", "dir", "nfs"))
LVM = plugin("lvm", pool("lvm", BLOCK), pool("lvm-tree", TREE, "lvm"))
ISCSI = plugin("iscsi", export("iscsi", BLOCK))


def test_each_pool_joins_with_the_exports_of_its_medium() -> None:
    types = joined(NFS, LVM, ISCSI).types
    assert sorted(types) == ["lvm-iscsi", "lvm-nfs", "nfs-storage"]
    assert {types[name][1].pool for name in ("lvm-iscsi", "lvm-nfs")} == {"lvm", "lvm-tree"}


def test_a_pair_that_is_named_is_not_joined_again() -> None:
    assert sorted(joined(NFS).types) == ["nfs-storage"]


def test_what_lies_in_a_machine_joins_with_nothing_by_itself() -> None:
    memory = plugin("memory", pool("memory", MACHINE), export("tmpfs", MACHINE))
    assert joined(memory, NFS).types.keys() == {"nfs-storage"}


def test_a_type_needs_the_plugins_of_both_its_sides() -> None:
    assert [one.name for one in joined(NFS, LVM).providers("lvm-nfs")] == ["lvm", "nfs"]


def test_an_export_that_goes_through_another_is_granted_by_that() -> None:
    disks = Export("local", TREE, "local-storage", through="nfs", start=Start.DISK)
    declared = joined(NFS, LVM, plugin("local", disks, needs=("nfs",)))
    whole = declared.exports["local"][1]
    assert (whole.driver, whole.secrets, whole.spec) == ("some.module:nfs", ("key",), NoSettings)
    assert whole.capabilities == {Cap.AUTHORIZE}
    assert whole.deployment == "local-storage"
    assert {"dir-local", "lvm-local"} <= declared.types.keys()
    assert [one.name for one in declared.providers("lvm-local")] == ["lvm", "local", "nfs"]
    settings = declared.storage_settings()["storage_types"]["lvm-local"]
    assert (settings["start"], settings["through"]) == ("disk", "nfs-root")


def test_what_an_export_cannot_go_through() -> None:
    disks = Export("local", TREE, "local-storage", through="nfs")
    assert "which no plug-in provides" in reasons(plugin("local", disks))["local"]
    assert "does not require" in reasons(NFS, plugin("local", disks))["local"]
    wrong = Export("san", BLOCK, "san", through="nfs")
    assert "cannot go through" in reasons(NFS, plugin("san", wrong, needs=("nfs",)))["san"]
    assert "no driver" in reasons(plugin("bare", Export("bare", TREE, "bare-root")))["bare"]
