"""Boot URLs and the files they may mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openqrm.domain.errors import NotFoundError
from openqrm.netboot import files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def boot_dir(tmp_path: Path) -> Path:
    modules = tmp_path / "boot/kernels/default/modules"
    (modules / "kernel/net").mkdir(parents=True)
    (modules / "kernel/net/e1000.ko").write_text("module")
    (modules.parent / "vmlinuz").write_text("kernel")
    (modules.parent / "secret").write_text("not listed")
    (tmp_path / "outside").write_text("outside")
    (modules / "link").symlink_to(tmp_path / "outside")
    (modules / "build").symlink_to("/usr/src")
    (modules / "inside").symlink_to("kernel/net/e1000.ko")
    return tmp_path / "boot"


def test_files_and_modules_of_a_kernel_are_found(boot_dir: Path) -> None:
    assert files.kernel_file(boot_dir, "default", "vmlinuz").read_text() == "kernel"
    assert files.module_file(boot_dir, "default", "kernel/net/e1000.ko").read_text() == "module"
    assert files.module_file(boot_dir, "default", "inside").read_text() == "module"


@pytest.mark.parametrize("name", ["secret", "initramfs", "", "../default/vmlinuz", "modules", "vmlinuz\0"])
def test_other_files_are_not_there(boot_dir: Path, name: str) -> None:
    with pytest.raises(NotFoundError):
        files.kernel_file(boot_dir, "default", name)


@pytest.mark.parametrize("kernel", ["..", "default/..", "Default", "", "a\0", "none", "default\n"])
def test_other_kernels_are_not_there(boot_dir: Path, kernel: str) -> None:
    with pytest.raises(NotFoundError):
        files.kernel_file(boot_dir, kernel, "vmlinuz")


@pytest.mark.parametrize(
    "path",
    ["../vmlinuz", "kernel/../../vmlinuz", "/etc/passwd", "link", "build", "kernel", "", ".", "a\0b", "//etc/passwd"],
)
def test_no_path_leads_out_of_the_modules(boot_dir: Path, path: str) -> None:
    with pytest.raises(NotFoundError):
        files.module_file(boot_dir, "default", path)
