"""The storage machine's root disk and first archive: made once from Debian packages, kept in the cache.

The disk holds Debian's storage software and the modules of the lab's kernel, with depmod's tables. Everything that is
ours, or of one lab, comes at boot in the initramfs, so that the disk needs to be made anew only for other packages.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from openqrm.admin.image import ImageSpec, base
from openqrm.netboot import cpio, modules, runtime

from .errors import LabError, RequirementError
from .state import cache_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openqrm.netboot.cpio import Entry

    from .kernel import KernelRoot

PACKAGES = (
    "attr",
    "btrfs-progs",
    "busybox-static",
    "e2fsprogs",
    "iproute2",
    "kmod",
    "lvm2",
    "mount",
    "nbdkit",
    "nfs-kernel-server",
    "openssh-server",
    "python3-rtslib-fb",
    "rsync",
    "tgt",
    "thin-provisioning-tools",
    "vblade",
    "xfsprogs",
    "xz-utils",
    "zfs-fuse",
)
"""Debian packages of the storage machine, beside the essential ones."""
ROOT_MB = 16384
"""Size of the root's file system; the file takes only what is written."""
REMOVED = ("etc/ssh/ssh_host_", "etc/machine-id", "etc/hostname", "etc/resolv.conf", "dev/")
"""Left out of the Debian tree: what must be unique, what is of the building machine, device nodes."""
BOOT_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_rng")
"""What the initramfs loads; ext4 is built into Debian's cloud kernel."""
SCRIPTS = Path(__file__).parent / "storage"


def root_disk(kernel: KernelRoot, cache: Path | None = None) -> Path:
    """The root disk (qcow2) for that kernel: from the cache, or made in about a minute. Never written to afterwards.

    Raises RequirementError when a program is missing or the caller is not root, LabError when something fails.
    """
    store = (cache or cache_directory()) / "storage"
    store.mkdir(parents=True, exist_ok=True)
    spec = ImageSpec(packages=PACKAGES)
    key = hashlib.sha256(repr((spec.base_key(), ROOT_MB, REMOVED)).encode()).hexdigest()[:16]
    disk = store / f"root-{kernel.version}-{key}.qcow2"
    with (store / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not disk.exists():
            for command, package in (("mke2fs", "e2fsprogs"), ("qemu-img", "qemu-utils")):
                if shutil.which(command) is None:
                    raise RequirementError(f"{command} is missing; install with: apt-get install -y {package}")
            _make(base(spec, cache or cache_directory()), kernel, disk)
    return disk


def _make(tree: Path, kernel: KernelRoot, disk: Path) -> None:
    """Unpack, add the modules, make a file system of it: whole or not there."""
    with tempfile.TemporaryDirectory(prefix=".make-", dir=disk.parent) as name:
        work = Path(name)
        root = work / "root"
        root.mkdir()
        excluded = [f"--exclude=./{pattern}*" for pattern in REMOVED]
        _run("tar", "-C", str(root), "--numeric-owner", "--xattrs", *excluded, "-xpf", str(tree))
        target = root / "usr/lib/modules" / kernel.version
        shutil.copytree(kernel.modules, target, ignore=shutil.ignore_patterns("build", "source"))
        (root / "dev").mkdir(exist_ok=True)
        file = work / "root.img"
        with file.open("wb") as handle:
            handle.truncate(ROOT_MB << 20)
        _run("mke2fs", "-q", "-t", "ext4", "-L", "storage", "-m", "0", "-d", str(root), str(file))
        new = work / "root.qcow2"
        _run("qemu-img", "convert", "-O", "qcow2", str(file), str(new))
        new.rename(disk)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"`{argv[0]}` failed ({done.returncode}): {done.stderr.strip()[-2000:]}")


def initramfs(kernel: KernelRoot, seed: Mapping[str, Entry]) -> bytes:
    """An archive that loads the drivers of the disk, mounts it, and puts `seed` (path to file) into it.

    Not compressed: unpacking costs an emulated processor more than reading does. Raises LabError.
    """
    try:
        tree = modules.read_tree(kernel.root, kernel.version)
        busybox = runtime.locate("busybox").read_bytes()
    except (modules.ModulesError, runtime.RuntimeBundleError) as error:
        raise LabError(str(error)) from error
    paths = modules.load_order(BOOT_MODULES, tree.deps)
    files: dict[str, bytes | Entry] = {
        "init": cpio.Entry.file((SCRIPTS / "machine-init.sh").read_bytes(), 0o755),
        "bin/busybox": cpio.Entry.file(busybox, 0o755),
        "dev/console": cpio.Entry.character_device(5, 1),
        "modules/order": "".join(f"{number}.ko\n" for number in range(len(paths))).encode(),
    }
    for number, path in enumerate(paths):
        files[f"modules/{number}.ko"] = (tree.path / path).read_bytes()
    files.update({f"seed/{path}": entry for path, entry in seed.items()})
    for name in ("proc", "sys", "run", "root"):
        files[name] = cpio.Entry.directory()
    return cpio.archive(files)
