"""Kexec without firmware: what a machine is to boot next, told over TLS with the digests of what it fetches plainly."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from openqrm.domain.errors import ConflictError, NotFoundError
from openqrm.netboot import files, script

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from openqrm.netboot.decisions import BootDecision


@dataclass
class Digests:
    """Computed once for each state of a file. Blocking; any thread may ask."""

    boot_dir: Path
    _known: dict[Path, tuple[tuple[int, int, int], str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, kernel: str, name: str) -> str:
        """SHA-256, hexadecimal; empty when the kernel has no such file."""
        try:
            path = files.kernel_file(self.boot_dir, kernel, name)
        except NotFoundError:
            return ""
        with self._lock:
            stat = path.stat()
            state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            known = self._known.get(path)
            if known is None or known[0] != state:
                with path.open("rb") as file:
                    known = (state, hashlib.file_digest(file, "sha256").hexdigest())
                self._known[path] = known
            return known[1]


def assignments(
    decision: BootDecision, *, boot_url: str, api_url: str, mac: str, digest: Callable[[str, str], str]
) -> dict[str, str]:
    """The answer of `/node/v1/boot`. ConflictError for a boot that only firmware can do."""
    kernel = decision.kernel
    if kernel is None or decision.before_kernel or decision.extra_initrds:
        raise ConflictError("this boot takes the firmware's boot loader", remedy="reboot")
    files_url = f"{boot_url}/boot/kernels/{kernel.name}"
    words = script.kernel_words(decision, boot_url=boot_url, api_url=api_url, mac=mac)
    return {
        "BOOT_KERNEL": f"{files_url}/vmlinuz",
        "BOOT_KERNEL_SHA256": digest(kernel.name, "vmlinuz"),
        "BOOT_INITRD": f"{files_url}/initramfs",
        "BOOT_INITRD_SHA256": digest(kernel.name, "initramfs"),
        "BOOT_ARGS": " ".join(words),
    }
