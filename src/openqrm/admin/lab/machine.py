"""A node: a QEMU machine that knows nothing but how to boot from the network."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import network, qmp
from .errors import LabError
from .process import ProcessRecord, run, spawn, stop, tail, wait_until_gone

if TYPE_CHECKING:
    from .state import Accelerator, LabSpec

QEMU = "qemu-system-x86_64"
OVMF_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
OVMF_VARS = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
SUN_PATH_MAX = 107
"""Longest path of a Unix socket (unix(7))."""


def accelerator_arguments(accelerator: Accelerator) -> list[str]:
    """How QEMU runs the processor. `-cpu max` and more than one processor stalled guests under TCG.

    What TCG has translated is thrown away each 128 MB: with the usual 1 GB a guest that had run for some minutes took
    as long again for a kexec, as each write to what was code looks through all of it.
    """
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host", "-smp", "1"]
    return ["-accel", "tcg,tb-size=128", "-cpu", "qemu64", "-smp", "1"]


@dataclass(frozen=True)
class Node:
    """Node `number` (from 1) of a lab whose state is in `directory`."""

    directory: Path
    spec: LabSpec
    number: int

    @property
    def name(self) -> str:
        """node1, node2, …"""
        return f"node{self.number}"

    @property
    def home(self) -> Path:
        """Where its files are."""
        return self.directory / "nodes" / self.name

    @property
    def serial_log(self) -> Path:
        """All that its serial console ever printed."""
        return self.home / "serial.log"

    @property
    def console_socket(self) -> Path:
        """Unix socket of its serial console, both ways."""
        return self.home / "console.sock"

    @property
    def qmp_socket(self) -> Path:
        """Unix socket of QEMU's machine protocol."""
        return self.home / "qmp.sock"

    @property
    def qemu_log(self) -> Path:
        """What QEMU itself said."""
        return self.home / "qemu.log"

    def macs(self) -> list[str]:
        """MAC addresses of its NICs, the boot NIC first."""
        return [network.node_mac(self.number, nic) for nic in range(2 if self.spec.second_nic else 1)]

    def prepare(self) -> None:
        """Make its files: firmware variables and disk. Raises LabError."""
        self.home.mkdir(parents=True, exist_ok=True)
        if len(str(self.console_socket)) > SUN_PATH_MAX:
            raise LabError(f"{self.home}: the path is too long for a Unix socket; use a shorter --dir")
        self.serial_log.touch()
        if self.spec.firmware == "uefi":
            shutil.copyfile(OVMF_VARS, self.home / "vars.fd")
        if self.spec.disk_mb:
            run(["qemu-img", "create", "-q", "-f", "qcow2", str(self.home / "disk.qcow2"), f"{self.spec.disk_mb}M"])

    def arguments(self, accelerator: Accelerator) -> list[str]:
        """QEMU's command line."""
        return [
            QEMU,
            "-name",
            self.name,
            "-machine",
            "q35,graphics=off",
            *accelerator_arguments(accelerator),
            "-m",
            str(self.spec.memory_mb),
            "-nodefaults",
            "-display",
            "none",
            "-vga",
            "none",
            *self._firmware(),
            *self._nics(),
            *self._disk(),
            "-device",
            "virtio-rng-pci",
            "-chardev",
            ",".join(
                (
                    "socket,id=console,server=on,wait=off,logappend=on",
                    f"path={self.console_socket}",
                    f"logfile={self.serial_log}",
                )
            ),
            "-serial",
            "chardev:console",
            "-qmp",
            f"unix:{self.qmp_socket},server=on,wait=off",
        ]

    def _firmware(self) -> list[str]:
        if self.spec.firmware == "bios":
            return []
        return [
            "-drive",
            f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF_CODE}",
            "-drive",
            f"if=pflash,format=raw,unit=1,file={self.home / 'vars.fd'}",
            # Without this OVMF tries PXE over IPv6 for minutes whenever IPv4 gets no answer at once.
            "-fw_cfg",
            "name=opt/org.tianocore/IPv6PXESupport,string=n",
        ]

    def _nics(self) -> list[str]:
        arguments: list[str] = []
        for nic, mac in enumerate(self.macs()):
            device = f"virtio-net-pci,netdev=n{nic},mac={mac}"
            if nic == 0:
                device += ",bootindex=1"
            if nic or self.spec.firmware == "uefi":
                device += ",romfile="  # UEFI: the firmware's own PXE, as on real machines; second NIC: never boots
            tap = network.tap_name(self.number, nic)
            arguments += ["-netdev", f"tap,id=n{nic},ifname={tap},script=no,downscript=no", "-device", device]
        return arguments

    def _disk(self) -> list[str]:
        if not self.spec.disk_mb:
            return []
        return [
            "-drive",
            f"if=none,id=d0,format=qcow2,cache=unsafe,file={self.home / 'disk.qcow2'}",
            "-device",
            "virtio-blk-pci,drive=d0",
        ]

    def power_on(self, accelerator: Accelerator) -> ProcessRecord:
        """Start the machine. Raises LabError with what QEMU said when it refuses."""
        for leftover in (self.qmp_socket, self.console_socket):
            leftover.unlink(missing_ok=True)
        argv = network.enter(network.lab_namespace(self.spec.name), *self.arguments(accelerator))
        record = spawn(argv, tag=self.directory, log=self.qemu_log)
        for _ in range(100):
            if self.qmp_socket.exists():
                return record
            if wait_until_gone(record, 0.05):
                break
        stop(record)
        raise LabError(f"{self.name} does not start:\n{tail(self.qemu_log)}")

    def power_off(self, record: ProcessRecord) -> None:
        """Pull the plug."""
        stop(record)

    def reset(self) -> None:
        """Press the reset button. Raises LabError."""
        qmp.execute(self.qmp_socket, "system_reset")

    def press_power_button(self) -> None:
        """Ask the guest to shut down (ACPI). Raises LabError."""
        qmp.execute(self.qmp_socket, "system_powerdown")
