"""What a lab needs of the machine, and how to install what is missing."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from .errors import RequirementError
from .machine import OVMF_CODE, OVMF_VARS


@dataclass(frozen=True)
class Need:
    """A command (by name) or a file or device (by path), and the Debian package that brings it."""

    what: str
    package: str
    """Empty: no package brings it."""
    why: str

    def met(self) -> bool:
        """Whether it is there."""
        return Path(self.what).exists() if self.what.startswith("/") else shutil.which(self.what) is not None


ALWAYS = (
    Need("qemu-system-x86_64", "qemu-system-x86", "runs the nodes"),
    Need("qemu-img", "qemu-utils", "makes their disks"),
    Need("/usr/lib/ipxe/qemu/efi-virtio.rom", "ipxe-qemu", "network boot of BIOS nodes"),
    Need("ip", "iproute2", "makes the lab's network"),
    Need("socat", "socat", "forwards the API, attaches consoles"),
    Need("unshare", "util-linux", "isolates the storage host"),
    Need("pivot_root", "util-linux", "isolates the storage host"),
    Need("sshd", "openssh-server", "access to the storage host"),
    Need("ssh-keygen", "openssh-client", "the storage host's key"),
    Need("dbus-daemon", "dbus-daemon", "control of the NFS server"),
    Need("ganesha.nfsd", "nfs-ganesha", "the NFS server"),
    Need("/usr/lib/x86_64-linux-gnu/ganesha/libfsalvfs.so", "nfs-ganesha-vfs", "the NFS server's file system layer"),
    Need("/dev/net/tun", "", "the nodes' network cards; load it with: modprobe tun"),
)
WITHOUT_CONTROLLER = (Need("radvd", "radvd", "spares iPXE its wait for IPv6, as the controller would"),)
UEFI = (Need(str(OVMF_CODE), "ovmf", "UEFI firmware"), Need(str(OVMF_VARS), "ovmf", "UEFI firmware"))


def missing(firmware: str, *, with_controller: bool = True) -> list[Need]:
    """What this machine lacks."""
    needs = (*ALWAYS, *(UEFI if firmware == "uefi" else ()), *(() if with_controller else WITHOUT_CONTROLLER))
    return [need for need in needs if not need.met()]


def check_root() -> None:
    """Raise RequirementError when the caller may not make networks and mounts."""
    if os.geteuid() != 0:
        raise RequirementError("the lab makes network namespaces and mounts: run it as root (sudo openqrm lab …)")


def check(firmware: str, *, with_controller: bool = True) -> None:
    """Raise RequirementError naming all that is missing and the command that installs it."""
    check_root()
    lacking = missing(firmware, with_controller=with_controller)
    if not lacking:
        return
    text = "\n".join(f"  {need.what}: {need.why}" for need in lacking)
    packages = " ".join(sorted({need.package for need in lacking if need.package}))
    remedy = f"\nInstall with: apt-get install -y --no-install-recommends {packages}" if packages else ""
    raise RequirementError(f"this machine lacks:\n{text}{remedy}")
