"""Which file on disk a boot URL means. Nothing outside the kernels' own directories can be named."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from openqrm.domain.errors import NotFoundError
from openqrm.domain.model import NAME_PATTERN

KERNEL_FILES = frozenset({"vmlinuz", "initramfs", "modules.tar.gz", "modules.alias", "modules.dep"})
"""What `kernel add` puts below the boot directory for each kernel, beside the folder `modules`."""


def kernel_file(boot_dir: Path, kernel: str, name: str) -> Path:
    """One of a kernel's own files; NotFoundError for any other name."""
    if name not in KERNEL_FILES:
        raise NotFoundError(f"kernels have no file {name[:80]!r}")
    return _below(_folder(boot_dir, kernel), name)


def module_file(boot_dir: Path, kernel: str, path: str) -> Path:
    """One module below lib/modules/VERSION; NotFoundError for a path or a link that leads out of it."""
    return _below(_folder(boot_dir, kernel) / "modules", path)


def loader_file(boot_dir: Path, name: str) -> Path:
    """A boot loader that the TFTP plug-in put there, for firmware that boots over HTTP."""
    return _below(boot_dir / "loaders", name)


def _folder(boot_dir: Path, kernel: str) -> Path:
    if not re.fullmatch(NAME_PATTERN, kernel):
        raise NotFoundError(f"there is no kernel {kernel[:80]!r}")
    return boot_dir / "kernels" / kernel


def _below(base: Path, path: str) -> Path:
    parts = PurePosixPath(path).parts
    if not parts or "\0" in path or ".." in parts or PurePosixPath(path).is_absolute():
        raise NotFoundError(f"there is no {path[:80]!r}")
    found = base.joinpath(*parts).resolve()
    if not found.is_relative_to(base.resolve()) or not found.is_file():
        raise NotFoundError(f"there is no {path[:80]!r}")
    return found
