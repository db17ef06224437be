"""KVM or emulation: never trusted from the device alone, always from a probe boot.

Inside a cloud /dev/kvm often opens while a guest hangs in its first instructions, or later in the kernel. So a
boot sector is run, and where a Linux kernel is at hand, that too.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from typing import TYPE_CHECKING

from .machine import QEMU, accelerator_arguments
from .state import cache_directory, current_boot_id

if TYPE_CHECKING:
    from pathlib import Path

    from .state import Accelerator

PROBE_SECONDS = 5.0
KERNEL_PROBE_SECONDS = 10.0
DEBUG_EXIT_STATUS = 0x2A << 1 | 1
"""QEMU's exit status when the guest writes 0x2A to the isa-debug-exit device."""
KERNEL_SAYS = b"Kernel panic - not syncing"
"""A kernel without a root ends so: it has then run all of its own start."""


def boot_sector() -> bytes:
    """A boot sector: count to 2^24 in real mode, then `mov al, 0x2A; out 0xF4, al; hlt`."""
    code = bytes(
        [
            0x66,
            0xB9,
            0x00,
            0x00,
            0x00,
            0x01,  # mov ecx, 0x1000000
            0x67,
            0xE2,
            0xFD,  # loop (ecx) to itself
            0xB0,
            0x2A,  # mov al, 0x2A
            0xE6,
            0xF4,  # out 0xF4, al
            0xF4,  # hlt
        ]
    )
    return code.ljust(510, b"\0") + b"\x55\xaa"


def choose(kernel: Path | None = None) -> Accelerator:
    """KVM if a probe boot with it succeeded in this boot of the machine, else TCG. `kernel`: a vmlinuz to try too.

    The result is cached per boot, QEMU and kernel. OPENQRM_LAB_ACCEL=kvm|tcg overrides.
    """
    wish = os.environ.get("OPENQRM_LAB_ACCEL")
    if wish == "kvm":
        return "kvm"
    if wish == "tcg" or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    cache = cache_directory() / "kvm-probe.json"
    key = f"{current_boot_id()} {kernel}"
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if not isinstance(known.get(key), bool):
        known = {key: works(kernel)}
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps(known), encoding="utf-8")
    return "kvm" if known[key] else "tcg"


def works(kernel: Path | None, accelerator: Accelerator = "kvm") -> bool:
    """Whether guests run to their end with this accelerator. Takes up to 15 s when they hang."""
    return _boot_sector_runs(accelerator) and (kernel is None or _kernel_runs(kernel, accelerator))


def _base(accelerator: Accelerator) -> list[str]:
    return [
        QEMU,
        "-machine",
        "q35",
        *accelerator_arguments(accelerator),
        "-m",
        "256",
        "-nodefaults",
        "-display",
        "none",
        "-vga",
        "none",
        "-no-reboot",
    ]


def _boot_sector_runs(accelerator: Accelerator) -> bool:
    with tempfile.NamedTemporaryFile(prefix="openqrm-probe-") as disk:
        disk.write(boot_sector())
        disk.truncate(1 << 20)  # SeaBIOS reads no disk of a single sector
        disk.flush()
        argv = [
            *_base(accelerator),
            "-drive",
            f"file={disk.name},format=raw,if=ide,snapshot=on",
            "-device",
            "isa-debug-exit,iobase=0xf4,iosize=0x04",
        ]
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == DEBUG_EXIT_STATUS


def _kernel_runs(kernel: Path, accelerator: Accelerator) -> bool:
    argv = [*_base(accelerator), "-kernel", str(kernel), "-append", "console=ttyS0 panic=-1 quiet", "-serial", "stdio"]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=KERNEL_PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return KERNEL_SAYS in done.stdout
