"""The lab's Linux kernel: Debian's linux-image-cloud-amd64, unpacked into a cache and not installed.

The lab must not depend on the kernel that this machine happens to run. The result is a directory as
`openqrm kernel add -l` wants it: boot/vmlinuz-VERSION and lib/modules/VERSION.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError, RequirementError
from .state import cache_directory

META_PACKAGE = "linux-image-cloud-amd64"
_DEPENDS = re.compile(r"^\s*Depends: (linux-image-(\S+))$", re.MULTILINE)


@dataclass(frozen=True)
class KernelRoot:
    """A kernel's files below `root`."""

    root: Path
    version: str

    @property
    def vmlinuz(self) -> Path:
        """The kernel itself."""
        return self.root / "boot" / f"vmlinuz-{self.version}"

    @property
    def modules(self) -> Path:
        """Its modules."""
        return self.root / "lib" / "modules" / self.version

    def complete(self) -> bool:
        """Whether it was unpacked to the end."""
        return (self.root / "complete").exists()


def cached(cache: Path | None = None) -> KernelRoot | None:
    """The newest kernel in the cache, without asking apt; None when there is none."""
    directory = (cache or cache_directory()) / "kernel"
    found = [KernelRoot(path, path.name) for path in directory.glob("*") if (path / "complete").exists()]
    return max(found, key=lambda kernel: (kernel.root / "complete").stat().st_mtime, default=None)


def lab_kernel(cache: Path | None = None, *, refresh: bool = False) -> KernelRoot:
    """The lab's kernel: from the cache, or with `refresh` (or an empty cache) the newest that apt knows.

    Raises RequirementError when apt, dpkg or depmod is missing or the package cannot be had, LabError when unpacking
    fails.
    """
    base = cache or cache_directory()
    known = None if refresh else cached(base)
    if known is not None:
        return known
    for command, package in (("apt-get", "apt"), ("dpkg", "dpkg"), ("depmod", "kmod")):
        if shutil.which(command) is None:
            raise RequirementError(f"{command} is missing; install with: apt-get install -y {package}")
    package, version = _newest()
    directory = base / "kernel"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kernel = KernelRoot(directory / version, version)
        if not kernel.complete():
            _unpack(package, kernel)
        os.utime(kernel.root / "complete")
    return kernel


def parse_depends(text: str) -> tuple[str, str] | None:
    """Package and kernel version from the output of `apt-cache depends linux-image-cloud-amd64`."""
    match = _DEPENDS.search(text)
    return (match.group(1), match.group(2)) if match else None


def _newest() -> tuple[str, str]:
    found = parse_depends(_run("apt-cache", "depends", META_PACKAGE, cwd=Path("/")))
    if found is None:
        raise RequirementError(f"apt knows no {META_PACKAGE}; run: apt-get update (on Debian, amd64)")
    return found


def _unpack(package: str, kernel: KernelRoot) -> None:
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=kernel.root.parent) as name:
        work = Path(name)
        _run("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package, cwd=work)
        archive = next(work.glob("*.deb"))
        root = work / "root"
        _run("dpkg", "-x", str(archive), str(root), cwd=work)
        shutil.rmtree(root / "usr" / "share", ignore_errors=True)
        _run("depmod", "-b", str(root), kernel.version, cwd=work)
        (root / "complete").touch()
        shutil.rmtree(kernel.root, ignore_errors=True)
        root.rename(kernel.root)


def _run(*argv: str, cwd: Path) -> str:
    done = subprocess.run(
        argv,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode:
        raise LabError(f"`{' '.join(argv)}` failed ({done.returncode}): {done.stderr.strip()}")
    return done.stdout
