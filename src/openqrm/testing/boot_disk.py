"""A disk with a system of its own, for tests of machines that boot without our kernel: MBR, boot loader, kernel, root.

The system is small: its initramfs finds the root (the second partition) on a local disk, or on an iSCSI disk that the
boot loader left word of in the iBFT, counts its boots there, and serves the page `status.txt` from it on port 80.
Needs Debian's syslinux, mtools, dosfstools, e2fsprogs and, for iSCSI, open-iscsi.
"""

from __future__ import annotations

import gzip
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from openqrm.netboot import cpio, modules, runtime
from openqrm.netboot.cpio import Entry
from openqrm.netboot.initramfs import module_files

if TYPE_CHECKING:
    from openqrm.admin.lab.kernel import KernelRoot

LABEL = "boot-disk"
MB = 1 << 20
BOOT_MB, ROOT_MB = 48, 24
SIZE_MB = 1 + BOOT_MB + ROOT_MB + 8
"""With empty space behind the partitions."""
MBR = Path("/usr/lib/syslinux/mbr/mbr.bin")
MODULES = (
    "virtio_pci", "virtio_net", "virtio_blk", "af_packet", "crc32c_generic", "ext4", "sd_mod", "iscsi_tcp",
    "iscsi_ibft",
)  # fmt: skip
SYSLINUX = """\
DEFAULT linux
LABEL linux
  KERNEL vmlinuz
  INITRD initrd
  APPEND quiet loglevel=4 mitigations=off nokaslr random.trust_cpu=1 net.ifnames=0 panic=10 console=ttyS0 disk={label}
"""
INIT = f"""\
#!/bin/busybox sh
PATH=/bin:/seed/rt/bin
export PATH
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /run
read -r line </proc/cmdline
label=${{line##*disk=}}
label=${{label%% *}}
exec </dev/console >/dev/console 2>&1
modprobe -a {" ".join(MODULES)}
card=
for card in /sys/class/net/*; do card=${{card##*/}}; [ "$card" = lo ] || break; done
ip link set "$card" up
ibft=/sys/firmware/ibft
from=disk
if [ -d $ibft/target0 ]; then
    from=ibft
    read -r address <$ibft/ethernet0/ip-addr
    read -r mask <$ibft/ethernet0/subnet-mask
    ip addr add "$address/$(ipcalc -p "$address" "$mask" | sed s/PREFIX=//)" dev "$card"
    mkdir -p /run/openqrm /run/lock /etc/iscsi && ln -s /seed/rt /run/openqrm/rt
    iscsistart -b
else
    udhcpc -i "$card" -s /bin/lease -q -n -t 20
fi
tries=0
until root=$(findfs LABEL=$label) || [ $tries -gt 50 ]; do tries=$((tries + 1)); sleep 0.2; done
mkdir -p /root
mount -t ext4 "$root" /root || {{ echo "boot disk: no root"; sleep 1000; }}
boots=0
[ -r /root/boots ] && read -r boots </root/boots
boots=$((boots + 1))
echo $boots >/root/boots
mkdir -p /root/www
printf 'from=%s\\nboots=%s\\nroot=%s\\n' "$from" "$boots" "$root" >/root/www/status.txt
sync
echo "boot disk: boot $boots from $from, root $root"
httpd -p 80 -h /root/www
while :; do sleep 3600; done
"""
LEASE = """\
#!/bin/busybox sh
[ "$1" = bound ] && ip addr add "$ip/$mask" dev "$interface"
exit 0
"""


def build(kernel: KernelRoot, output: Path, work: Path, label: str = LABEL) -> Path:
    """Make the raw disk at `output`, of `SIZE_MB`; its root has the label.

    FileNotFoundError when a tool is missing, CalledProcessError when one fails.
    """
    work.mkdir(parents=True, exist_ok=True)
    (work / "vmlinuz").write_bytes(kernel.vmlinuz.read_bytes())
    (work / "initrd").write_bytes(gzip.compress(cpio.archive(_initramfs(kernel)), compresslevel=1, mtime=0))
    (work / "syslinux.cfg").write_text(SYSLINUX.format(label=label), encoding="ascii")
    with output.open("wb") as disk:
        disk.truncate(SIZE_MB * MB)
    with output.open("r+b") as disk:
        disk.write(_master_boot_record())
    _run("mkfs.fat", "-F", "16", "--offset", str(MB // 512), "-h", str(MB // 512), str(output), str(BOOT_MB * 1024))
    image = f"{output}@@{MB}"
    for name in ("vmlinuz", "initrd", "syslinux.cfg"):
        _run("mcopy", "-i", image, str(work / name), f"::{name}")
    _run("syslinux", "-t", str(MB), "-i", str(output))
    offset = (1 + BOOT_MB) * MB
    _run("mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "-E", f"offset={offset}", str(output), f"{ROOT_MB}M")
    return output


def _master_boot_record() -> bytes:
    """The boot loader's first sector, with a FAT partition to boot from and a Linux one behind it."""
    boot = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x0E, b"\xfe\xff\xff", MB // 512, BOOT_MB * MB // 512)
    start = (1 + BOOT_MB) * MB // 512
    root = struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", start, ROOT_MB * MB // 512)
    return MBR.read_bytes()[:440].ljust(446, b"\0") + (boot + root).ljust(64, b"\0") + b"\x55\xaa"


def _initramfs(kernel: KernelRoot) -> dict[str, bytes | Entry]:
    tree = modules.read_tree(kernel.root, kernel.version)
    bundle = runtime.gather(("iscsistart",))
    listed = subprocess.run([str(runtime.locate("busybox")), "--list"], capture_output=True, text=True, check=True)
    files: dict[str, bytes | Entry] = {
        "init": Entry.file(INIT.encode(), 0o755),
        "bin/lease": Entry.file(LEASE.encode(), 0o755),
        "bin/busybox": bundle["rt/bin/busybox"],
        "dev/console": Entry.character_device(5, 1),
    }
    files.update({f"bin/{name}": Entry.link("busybox") for name in listed.stdout.split() if name != "busybox"})
    files.update({f"seed/{path}": entry for path, entry in bundle.items()})
    files.update(module_files(tree, MODULES))
    files.update({name: Entry.directory() for name in ("proc", "sys", "run", "tmp")})
    return files


def _run(*argv: str) -> None:
    subprocess.run(argv, stdin=subprocess.DEVNULL, text=True, check=True, capture_output=True)
