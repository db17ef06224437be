"""The lab's storage machine: a real, if emulated, storage host with a kernel of its own, at 10.99.0.3.

The storage host in namespaces (`storage_host.py`) is quick, but has this machine's kernel: no LVM, no NFS server of
the kernel, no LIO. This one is a QEMU machine with Debian's lvm2, thin-provisioning-tools, nfs-kernel-server, tgt,
rtslib (LIO), vblade, nbdkit, btrfs, XFS and zfs-fuse, and the modules of Debian's cloud kernel. Its second disk is the
volume group `vg0`, empty. The kernel's NFS server runs; tgtd and the others do not. Root logs in by SSH with the
installation's key. `/srv/openqrm` is a directory on its root disk (ext4).

Try it by hand: `openqrm lab up --nodes 0 --storage-machine`, then `openqrm lab exec --storage2 -- lvs`. In a test:
`openqrm.testing.storage_machine`. What is to be done again each time the host starts goes into
/etc/openqrm/boot.d (executable files); mounts go into /etc/fstab, NFS exports into /etc/exports.d.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openqrm.netboot.cpio import Entry

from . import network, qmp
from .errors import LabError
from .kernel import lab_kernel
from .machine import QEMU, accelerator_arguments
from .process import ProcessRecord, run, spawn, stop, tail, wait_until_gone
from .storage_disk import SCRIPTS, initramfs, root_disk

if TYPE_CHECKING:
    from pathlib import Path

    from .state import Accelerator, LabSpec

MEMORY_MB = 640
DISK_MB = 24576
"""Size of the volume group `vg0`; the file takes only what is written."""
READY = b"] ready\r"
START_SECONDS = 300.0
"""An emulated machine on a busy host; on a quiet one it takes 4 s."""
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet loglevel=3 mitigations=off nokaslr random.trust_cpu=1 net.ifnames=0 panic=10 rdinit=/init"
)
SSHD_CONFIGURATION = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
MaxSessions 200
MaxStartups 200
Subsystem sftp internal-sftp
SetEnv PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DM_DISABLE_UDEV=1
"""
LVM_CONFIGURATION = """\
devices { obtain_device_list_from_udev = 0 external_device_info_source = "none" use_devicesfile = 0 }
activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }
"""
NFS_CONFIGURATION = """\
# NFS 4 alone: no portmapper. Short leases: after a restart of the server its clients wait for a lease's time.
[general]
pipefs-directory=/run/rpc_pipefs
[nfsd]
threads=4
grace-time=10
lease-time=10
udp=n
vers3=n
[mountd]
manage-gids=n
"""


@dataclass(frozen=True)
class StorageMachine:
    """The storage machine of the lab whose state is in `directory`."""

    directory: Path
    spec: LabSpec

    @property
    def home(self) -> Path:
        """Where its files are."""
        return self.directory / "storage2"

    @property
    def serial_log(self) -> Path:
        """All that its serial console ever printed."""
        return self.home / "serial.log"

    @property
    def host_key(self) -> Path:
        """Its public SSH host key."""
        return self.home / "ssh_host_ed25519_key.pub"

    @property
    def qmp_socket(self) -> Path:
        """Unix socket of QEMU's machine protocol."""
        return self.home / "qmp.sock"

    def prepare(self, authorized_keys: str) -> None:
        """Make its disks and its initramfs; disks that are there are kept. Raises RequirementError, LabError."""
        self.home.mkdir(parents=True, exist_ok=True)
        kernel = lab_kernel()
        base = root_disk(kernel)
        if not self.host_key.exists():
            key = str(self.host_key.with_suffix(""))
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "storage2", "-f", key])
        shutil.copyfile(kernel.vmlinuz, self.home / "vmlinuz")
        (self.home / "initrd").write_bytes(initramfs(kernel, self._seed(authorized_keys)))
        if not (self.home / "root.qcow2").exists():
            with (self.home / "volumes.raw").open("wb") as volumes:
                volumes.truncate(DISK_MB << 20)
            run(
                [
                    "qemu-img",
                    "create",
                    "-q",
                    "-f",
                    "qcow2",
                    "-b",
                    str(base),
                    "-F",
                    "qcow2",
                    str(self.home / "root.qcow2"),
                ]
            )
        self.serial_log.touch()

    def _seed(self, authorized_keys: str) -> dict[str, Entry]:
        """What is ours in its root, by path."""
        private = self.host_key.with_suffix("").read_bytes()
        hosts = f"127.0.0.1 localhost\n{network.CONTROLLER_ADDRESS} controller\n{network.MACHINE_ADDRESS} storage2\n"
        return {
            "etc/openqrm-lab/machine.sh": Entry.file((SCRIPTS / "machine.sh").read_bytes(), 0o755),
            "etc/openqrm-lab/address": Entry.file(f"{network.MACHINE_ADDRESS}\n".encode()),
            "etc/openqrm-lab/gateway": Entry.file(f"{network.CONTROLLER_ADDRESS}\n".encode()),
            "etc/openqrm/boot.d": Entry.directory(),
            "etc/rtslib-fb-target": Entry.directory(),
            "etc/hostname": Entry.file(b"storage2\n"),
            "etc/hosts": Entry.file(hosts.encode()),
            "etc/fstab": Entry.file(b"# mounted once the volume groups are active\n"),
            "etc/ssh/sshd_config": Entry.file(SSHD_CONFIGURATION.encode()),
            "etc/ssh/ssh_host_ed25519_key": Entry.file(private, 0o600),
            "etc/lvm/lvmlocal.conf": Entry.file(LVM_CONFIGURATION.encode()),
            "etc/nfs.conf": Entry.file(NFS_CONFIGURATION.encode()),
            "root/.ssh": Entry.directory(0o700),
            "root/.ssh/authorized_keys": Entry.file(f"{authorized_keys.strip()}\n".encode(), 0o600),
            "srv/openqrm": Entry.directory(),
            "usr/local/sbin/nfs-server": Entry.file((SCRIPTS / "nfs-server").read_bytes(), 0o755),
        }

    def arguments(self, accelerator: Accelerator) -> list[str]:
        """QEMU's command line."""
        argv = [QEMU, "-name", "storage2", "-machine", "q35,graphics=off", *accelerator_arguments(accelerator)]
        argv += ["-m", str(MEMORY_MB), "-nodefaults", "-display", "none", "-vga", "none"]
        argv += ["-kernel", str(self.home / "vmlinuz"), "-initrd", str(self.home / "initrd")]
        argv += ["-append", KERNEL_ARGUMENTS]
        argv += ["-netdev", f"tap,id=n0,ifname={network.MACHINE_TAP},script=no,downscript=no"]
        argv += ["-device", f"virtio-net-pci,netdev=n0,mac={network.MACHINE_MAC},romfile="]
        # Unsafe only when the real machine loses its power: what the guest flushed survives QEMU's death. LVM writes
        # its metadata without a flush, as to a disk without a cache; a raw file is such a disk.
        for number, (name, kind) in enumerate((("root", "qcow2"), ("volumes", "raw"))):
            file = self.home / f"{name}.{kind}"
            argv += ["-drive", f"if=none,id=d{number},format={kind},cache=unsafe,discard=unmap,file={file}"]
            argv += ["-device", f"virtio-blk-pci,drive=d{number}"]
        argv += ["-device", "virtio-rng-pci", "-qmp", f"unix:{self.qmp_socket},server=on,wait=off"]
        return [*argv, "-chardev", f"file,id=console,path={self.serial_log},append=on", "-serial", "chardev:console"]

    def power_on(self, accelerator: Accelerator) -> ProcessRecord:
        """Start it, without waiting for its services. Raises LabError with what QEMU said when it refuses."""
        self.qmp_socket.unlink(missing_ok=True)
        self._mark()
        log = self.home / "qemu.log"
        argv = network.enter(network.lab_namespace(self.spec.name), *self.arguments(accelerator))
        record = spawn(argv, tag=self.directory, log=log)
        for _ in range(100):
            if self.qmp_socket.exists():
                return record
            if wait_until_gone(record, 0.05):
                break
        stop(record)
        raise LabError(f"the storage machine does not start:\n{tail(log)}")

    def _mark(self) -> None:
        """Its console up to here belongs to an earlier start."""
        size = self.serial_log.stat().st_size if self.serial_log.exists() else 0
        (self.home / "started-at").write_text(str(size), encoding="ascii")

    def wait_until_ready(self, record: ProcessRecord, seconds: float = START_SECONDS) -> None:
        """Until all of its services run, as its console says. Raises LabError with the console's end."""
        deadline = time.monotonic() + seconds
        began = int((self.home / "started-at").read_text(encoding="ascii"))
        while True:
            with self.serial_log.open("rb") as log:
                log.seek(began)
                if READY in log.read():
                    return
            if not record.alive() or time.monotonic() > deadline:
                what = "ended" if not record.alive() else f"was not ready within {seconds:g} s"
                raise LabError(f"the storage machine {what}; see {self.serial_log}:\n{tail(self.serial_log, 15)}")
            time.sleep(0.1)

    def start(self, accelerator: Accelerator) -> ProcessRecord:
        """Start it and wait until it is ready. Raises LabError."""
        record = self.power_on(accelerator)
        try:
            self.wait_until_ready(record)
        except LabError:
            stop(record)
            raise
        return record

    def stop(self, record: ProcessRecord) -> None:
        """Pull the plug."""
        stop(record)

    def reset(self) -> None:
        """Press the reset button; `wait_until_ready` tells when it is up again. Raises LabError."""
        self._mark()
        qmp.execute(self.qmp_socket, "system_reset")

    def ssh(self, key: Path, *argv: str) -> list[str]:
        """The command that runs `argv` on it, as root; `key` is a private key that it knows."""
        known = self.home / "known_hosts"
        public = " ".join(self.host_key.read_text(encoding="ascii").split()[:2])
        known.write_text(f"{network.MACHINE_ADDRESS} {public}\n", encoding="ascii")
        options = (f"UserKnownHostsFile={known}", "ConnectTimeout=10", "BatchMode=yes", "LogLevel=ERROR")
        flags = [word for option in options for word in ("-o", option)]
        words = ["'" + word.replace("'", "'\\''") + "'" for word in argv]
        command = ["ssh", "-i", str(key), *flags, f"root@{network.MACHINE_ADDRESS}", " ".join(words)]
        return network.enter(network.lab_namespace(self.spec.name), *command)
