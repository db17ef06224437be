"""Which file on disk a boot URL means. Nothing outside the kernels' own directories can be named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from openqrm.domain.errors import NotFoundError
from openqrm.domain.kernel import Kernel

if TYPE_CHECKING:
    from openqrm.plugin_api.records import Reader

KERNEL_FILES = frozenset({"vmlinuz", "initramfs", "modules.tar.gz", "modules.alias", "modules.dep"})
"""What `kernel add` puts below the boot directory for each kernel."""


@dataclass(frozen=True, slots=True)
class ServedKernel:
    """Where the files of a kernel are; both fields of a kernel never change, so this may be remembered."""

    files: Path
    modules: Path


def served_kernel(reader: Reader, boot_dir: Path, name: str) -> ServedKernel:
    """The directories of a registered kernel; NotFoundError."""
    kernel = reader.one(Kernel, name=name)
    if kernel is None:
        raise NotFoundError(f"there is no kernel {name[:80]}")
    return ServedKernel(boot_dir / "kernels" / kernel.name, Path(kernel.location) / "lib" / "modules" / kernel.version)


def kernel_file(kernel: ServedKernel, name: str) -> Path:
    """One of the kernel's own files; NotFoundError for any other name."""
    if name not in KERNEL_FILES:
        raise NotFoundError(f"kernels have no file {name[:80]}")
    return _below(kernel.files, name)


def module_file(kernel: ServedKernel, path: str) -> Path:
    """One module below lib/modules/VERSION; NotFoundError for a path or a link that leads out of it."""
    return _below(kernel.modules, path)


def _below(base: Path, path: str) -> Path:
    parts = PurePosixPath(path).parts
    if not parts or "\0" in path or ".." in parts or PurePosixPath(path).is_absolute():
        raise NotFoundError(f"there is no {path[:80]!r}")
    found = base.joinpath(*parts).resolve()
    if not found.is_relative_to(base.resolve()) or not found.is_file():
        raise NotFoundError(f"there is no {path[:80]!r}")
    return found
