"""Which modules a machine needs, from depmod's tables."""

from __future__ import annotations

import hashlib
import tarfile
from typing import TYPE_CHECKING

import pytest

from openqrm.netboot import modules

if TYPE_CHECKING:
    from pathlib import Path

DEP = """\
kernel/drivers/net/virtio_net.ko: kernel/net/core/failover.ko kernel/drivers/net/net_failover.ko \
kernel/drivers/virtio/virtio.ko
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/net/core/failover.ko:
kernel/drivers/virtio/virtio.ko:
kernel/drivers/net/e1000.ko:
kernel/fs/btrfs/btrfs.ko: kernel/lib/libcrc32c.ko
kernel/lib/libcrc32c.ko:
kernel/crypto/crc32c-generic.ko.xz:
"""
ALIAS = """\
# Aliases extracted from modules themselves.
alias virtio:d00000001v* virtio_net
alias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000
alias fs-btrfs btrfs
alias crc32c crc32c-generic
"""
SOFTDEP = """\
# Soft dependencies extracted from modules themselves.
softdep libcrc32c pre: crc32c
softdep btrfs pre: crc32c-generic sha256 post: xor
softdep virtio pre: virtio_net
"""


@pytest.fixture
def deps() -> dict[str, tuple[str, ...]]:
    return modules.parse_dep(DEP)


def test_hardware_gets_its_module_after_what_it_needs(deps: dict[str, tuple[str, ...]]) -> None:
    found = modules.needed(["virtio:d00000001v00001AF4"], modules.parse_alias(ALIAS), deps)
    assert found == (
        "kernel/drivers/virtio/virtio.ko",
        "kernel/drivers/net/net_failover.ko",
        "kernel/net/core/failover.ko",
        "kernel/drivers/net/virtio_net.ko",
    )


def test_each_module_comes_once(deps: dict[str, tuple[str, ...]]) -> None:
    nic = "virtio:d00000001v00001AF4"
    found = modules.needed([nic, nic, "pci:v00008086d0000100Esv0sd0bc02sc00i00"], modules.parse_alias(ALIAS), deps)
    assert len(found) == len(set(found)) == 5
    assert found[-1] == "kernel/drivers/net/e1000.ko"


def test_unknown_hardware_needs_nothing(deps: dict[str, tuple[str, ...]]) -> None:
    assert modules.needed(["pci:v0000FFFFd0000FFFF"], modules.parse_alias(ALIAS), deps) == ()


def test_what_is_built_in_is_left_out(deps: dict[str, tuple[str, ...]]) -> None:
    assert modules.load_order(["virtio_pci", "e1000"], deps) == ("kernel/drivers/net/e1000.ko",)


def test_names_are_spelled_as_the_kernel_does(deps: dict[str, tuple[str, ...]]) -> None:
    assert modules.name_of("kernel/crypto/crc32c-generic.ko.xz") == "crc32c_generic"
    assert modules.load_order(["crc32c-generic"], deps) == ("kernel/crypto/crc32c-generic.ko.xz",)
    assert modules.parse_alias(ALIAS)[3].module == "crc32c_generic"


def test_soft_dependencies_become_ordinary_ones(deps: dict[str, tuple[str, ...]]) -> None:
    merged = modules.with_softdeps(deps, modules.parse_softdep(SOFTDEP))
    assert merged["kernel/fs/btrfs/btrfs.ko"] == ("kernel/lib/libcrc32c.ko", "kernel/crypto/crc32c-generic.ko.xz")
    order = modules.load_order(["btrfs"], merged)
    assert order[-1] == "kernel/fs/btrfs/btrfs.ko"
    assert order.index("kernel/crypto/crc32c-generic.ko.xz") < 2


def test_a_circle_of_soft_dependencies_is_cut(deps: dict[str, tuple[str, ...]]) -> None:
    merged = modules.with_softdeps(deps, modules.parse_softdep(SOFTDEP))
    assert merged["kernel/drivers/virtio/virtio.ko"] == ()


def test_tables_are_written_as_they_are_read(deps: dict[str, tuple[str, ...]]) -> None:
    assert modules.parse_dep(modules.render_dep(deps)) == deps
    aliases = modules.parse_alias(ALIAS)
    assert modules.parse_alias(modules.render_alias(aliases)) == aliases


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    base = tmp_path / "root/lib/modules/6.1"
    for path in modules.parse_dep(DEP):
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        (base / path).write_bytes(path.encode())
    (base / "modules.dep").write_text(DEP)
    (base / "modules.alias").write_text(ALIAS)
    (base / "modules.softdep").write_text(SOFTDEP)
    (base / "build").symlink_to("/usr/src/linux")
    return tmp_path / "root"


def test_the_served_archive_ends_with_its_stamp_and_is_the_same_twice(tree: Path, tmp_path: Path) -> None:
    modules.publish(tree, "6.1", tmp_path / "a")
    modules.publish(tree, "6.1", tmp_path / "b")
    assert (tmp_path / "a/modules.tar.gz").read_bytes() == (tmp_path / "b/modules.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "a/modules.tar.gz") as tar:
        names = tar.getnames()
        member = tar.extractfile(names[-1])
        assert member is not None
        stamp = member.read().decode().strip()
    assert names[0] == "lib/modules/6.1"
    assert names[-1] == "lib/modules/6.1/openqrm-stamp"
    assert "lib/modules/6.1/build" not in names
    assert stamp == hashlib.sha256((tmp_path / "a/modules.dep").read_bytes()).hexdigest()


def test_a_missing_tree_is_named(tmp_path: Path) -> None:
    with pytest.raises(modules.ModulesError, match=r"no modules for kernel 9\.9"):
        modules.read_tree(tmp_path, "9.9")


def test_modules_that_busybox_cannot_load_are_refused(tree: Path) -> None:
    (tree / "lib/modules/6.1/modules.dep").write_text("kernel/net/x.ko.zst:\n")
    with pytest.raises(modules.ModulesError, match="zstd"):
        modules.read_tree(tree, "6.1")
