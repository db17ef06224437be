"""`openqrm image build`: a small server image from Debian packages, for the lab, tests and first steps.

It has Debian's package tools, an SSH server, a web page on port 80 that tells host name, identity and boots,
and the modules of one kernel. Its process 1 is a small script, so that it is up in seconds even under emulation.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from openqrm.admin.lab.errors import LabError, RequirementError
from openqrm.admin.lab.kernel import KernelRoot, lab_kernel
from openqrm.admin.lab.state import cache_directory
from openqrm.netboot import modules

if TYPE_CHECKING:
    from collections.abc import Sequence

SUITE = "bookworm"
PACKAGES = ("busybox-static", "iproute2", "kmod", "mount", "openssh-server")
EXCLUDED = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
    "/var/cache/debconf/*-old",
)
FILES = {
    "init": ("usr/sbin/init", 0o755),
    "shutdown": ("etc/openqrm/shutdown", 0o755),
    "count": ("srv/www/cgi-bin/count", 0o755),
    "hosts": ("etc/hosts", 0o644),
    "sshd_config": ("etc/ssh/sshd_config", 0o644),
}
"""Our own files in the image: name in openqrm/node/image, path, mode."""
DIRECTORIES = ("etc/openqrm", "etc/openqrm/boot.d", "srv/www", "srv/www/cgi-bin", "var/lib/openqrm-image")
LINKS = {f"usr/sbin/{name}": "/bin/busybox" for name in ("reboot", "poweroff", "halt")}
REMOVED = (
    "etc/ssh/ssh_host_",
    "etc/machine-id",
    "etc/hostname",
    "etc/resolv.conf",
    "var/log/apt",
    "var/log/dpkg.log",
    "var/log/bootstrap.log",
    "dev/",
)
"""Members of the Debian tree left out: what must be unique, what is of the building machine, device nodes."""


@dataclass(frozen=True)
class ImageSpec:
    """What to build. `kernel`: whose modules go in, None for none."""

    suite: str = SUITE
    packages: tuple[str, ...] = PACKAGES
    kernel: KernelRoot | None = None

    def base_key(self) -> str:
        """Names the cached Debian tree: same key, same recipe."""
        text = repr((self.suite, self.packages, EXCLUDED))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def content_key(self) -> str:
        """Names a finished image apart from its kernel: same key, same recipe and same files of ours."""
        digest = hashlib.sha256(repr((self.base_key(), DIRECTORIES, LINKS, REMOVED)).encode())
        for name, path in sorted(FILES.items()):
            digest.update(repr(path).encode() + _source(name))
        return digest.hexdigest()[:16]


def _source(name: str) -> bytes:
    return resources.files("openqrm").joinpath("node", "image", name).read_bytes()


def base(spec: ImageSpec, cache: Path, *, refresh: bool = False) -> Path:
    """The Debian tree as a tarball, made by mmdebstrap or taken from the cache. Raises RequirementError, LabError."""
    path = cache / "image" / f"{spec.suite}-{spec.base_key()}.tar"
    if path.exists() and not refresh:
        return path
    if shutil.which("mmdebstrap") is None:
        raise RequirementError("mmdebstrap is missing; install with: apt-get install -y mmdebstrap")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=path.parent) as work:
        new = Path(work) / "base.tar"
        argv = [
            "mmdebstrap",
            "--variant=apt",
            f"--include={','.join(spec.packages)}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED),
            spec.suite,
            str(new),
        ]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"mmdebstrap failed ({done.returncode}):\n{done.stderr[-2000:]}")
        new.rename(path)
    return path


def own_members(spec: ImageSpec) -> list[tuple[tarfile.TarInfo, bytes]]:
    """What we add to the Debian tree: our files, links, and the kernel's modules with their stamp."""
    members = [(_info(name, tarfile.DIRTYPE, 0o755), b"") for name in DIRECTORIES]
    for name, (path, mode) in FILES.items():
        members.append((_info(path, tarfile.REGTYPE, mode), _source(name)))
    for path, target in LINKS.items():
        link = _info(path, tarfile.SYMTYPE, 0o777)
        link.linkname = target
        members.append((link, b""))
    if spec.kernel is not None:
        members += _module_members(spec.kernel)
    return members


def _module_members(kernel: KernelRoot) -> list[tuple[tarfile.TarInfo, bytes]]:
    top = f"usr/lib/modules/{kernel.version}"  # lib is a link to usr/lib
    members = [(_info(name, tarfile.DIRTYPE, 0o755), b"") for name in ("usr/lib/modules", top)]
    for path in sorted(kernel.modules.rglob("*")):
        name = f"{top}/{path.relative_to(kernel.modules)}"
        if path.is_symlink():
            continue  # build and source: they point out of the image
        if path.is_dir():
            members.append((_info(name, tarfile.DIRTYPE, 0o755), b""))
        else:
            members.append((_info(name, tarfile.REGTYPE, 0o644), path.read_bytes()))
    members.append((_info(f"{top}/{modules.STAMP}", tarfile.REGTYPE, 0o644), _stamp(kernel)))
    return members


def _stamp(kernel: KernelRoot) -> bytes:
    try:
        stamp = modules.stamp(modules.read_tree(kernel.root, kernel.version))
    except modules.ModulesError as error:
        raise LabError(str(error)) from error
    return f"{stamp}\n".encode()


def _info(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(f"./{name}")
    info.type, info.mode, info.uname, info.gname = kind, mode, "root", "root"
    return info


def write(spec: ImageSpec, tree: Path, target: Path) -> None:
    """Write the image as one tarball, whole or not at all; gzip if the name says so."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.{os.getpid()}")
    ours = own_members(spec)
    replaced = {info.name for info, _ in ours if info.type != tarfile.DIRTYPE}
    try:
        with tarfile.open(tree) as old, _create(new, compressed=target.suffix in {".gz", ".tgz"}) as archive:
            for member in old:
                if member.name in replaced or member.name.removeprefix("./").startswith(REMOVED):
                    continue
                archive.addfile(member, old.extractfile(member) if member.isreg() else None)
            for info, content in ours:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        new.rename(target)
    finally:
        new.unlink(missing_ok=True)


def _create(path: Path, *, compressed: bool) -> tarfile.TarFile:
    if compressed:
        return tarfile.open(path, "w:gz", compresslevel=6, format=tarfile.PAX_FORMAT)
    return tarfile.open(path, "w", format=tarfile.PAX_FORMAT)


def build(spec: ImageSpec, out: Path, *, cache: Path | None = None, refresh: bool = False) -> None:
    """Build the image into `out`: a tarball if it ends in .tar, .tar.gz or .tgz, else a directory, which must be empty.

    Raises RequirementError when something is missing, LabError when it fails.
    """
    tree = base(spec, cache or cache_directory(), refresh=refresh)
    if out.name.endswith((".tar", ".tar.gz", ".tgz")):
        write(spec, tree, out)
        return
    if out.exists() and any(out.iterdir()):
        raise LabError(f"{out} is not empty")
    if os.geteuid() != 0:
        raise RequirementError(
            "an image in a directory has files of several owners: run this as root, "
            "or write a tarball (--out image.tar)"
        )
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="openqrm-image-") as work:
        archive = Path(work) / "image.tar"
        write(spec, tree, archive)
        done = subprocess.run(
            ["tar", "-C", str(out), "--numeric-owner", "-xpf", str(archive)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise LabError(f"unpacking into {out} failed: {done.stderr.strip()}")


def build_small(root: Path, version: str, *, cache: Path | None = None) -> Path:
    """The image with the modules of kernel `version` below `root`, as a tarball that is built once.

    Raises RequirementError when something is missing, LabError when it fails.
    """
    spec = ImageSpec(kernel=KernelRoot(root, version))
    base_directory = (cache or cache_directory()) / "image"
    path = base_directory / f"small-{version}-{spec.content_key()}.tar"
    if not path.exists():
        for outdated in base_directory.glob("small-*.tar"):
            outdated.unlink(missing_ok=True)
        build(spec, path, cache=cache)
    return path


def parser() -> argparse.ArgumentParser:
    """The command line of `openqrm image`."""
    top = argparse.ArgumentParser(prog="openqrm image", description=__doc__.splitlines()[0])
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    make = verbs.add_parser("build", help="build the small server image")
    make.add_argument("--out", type=Path, required=True, metavar="DIR|FILE.tar[.gz]", help="where to")
    make.add_argument(
        "--kernel-root",
        type=Path,
        metavar="ROOT",
        help="take modules from ROOT/lib/modules (default: the lab's kernel)",
    )
    make.add_argument("--kernel-version", metavar="VERSION", help="which modules; needed with --kernel-root")
    make.add_argument("--no-modules", action="store_true", help="without kernel modules")
    make.add_argument("--suite", default=SUITE, help=f"Debian release (default: {SUITE})")
    make.add_argument("--include", action="append", default=[], metavar="PACKAGE", help="a further Debian package")
    make.add_argument("--refresh", action="store_true", help="take the packages anew, not from the cache")
    return top


def _spec(arguments: argparse.Namespace) -> ImageSpec:
    packages = tuple(dict.fromkeys((*PACKAGES, *arguments.include)))
    if arguments.no_modules:
        return ImageSpec(arguments.suite, packages)
    if arguments.kernel_root is None:
        kernel = lab_kernel()
        if arguments.kernel_version not in {None, kernel.version}:
            raise LabError(
                f"the lab's kernel is {kernel.version}; name the root of {arguments.kernel_version} with --kernel-root"
            )
    elif arguments.kernel_version is None:
        raise LabError("--kernel-root needs --kernel-version")
    else:
        kernel = KernelRoot(arguments.kernel_root, arguments.kernel_version)
    if not kernel.modules.is_dir():
        raise LabError(f"{kernel.modules} does not exist")
    return ImageSpec(arguments.suite, packages, kernel)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `openqrm image` and return the exit status: 0 done, 1 failed, 2 wrong usage or something is missing."""
    arguments = parser().parse_args(argv)
    try:
        build(_spec(arguments), arguments.out, refresh=arguments.refresh)
    except LabError as error:
        print(f"openqrm image: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"openqrm image: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.out} is built")
    return 0


if __name__ == "__main__":
    sys.exit(main())
