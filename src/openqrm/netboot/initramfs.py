"""Builds the initramfs that machines discover themselves in.

Small on purpose: busybox, network drivers, NFS, an SSH server and `curl`. Modules for other hardware are fetched over
HTTP once the network is up.
"""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import TYPE_CHECKING

from openqrm.netboot import agent, cpio, modules, runtime
from openqrm.netboot.cpio import Entry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NETWORK = (
    "virtio_net", "virtio_pci", "virtio_mmio", "e1000", "e1000e", "igb", "igbvf", "igc", "ixgbe", "ixgbevf",
    "i40e", "iavf", "ice", "r8169", "8139cp", "8139too", "tg3", "bnx2", "bnx2x", "bnxt_en", "mlx4_en",
    "mlx4_core", "mlx5_core", "vmxnet3", "hv_netvsc", "hv_vmbus", "pci_hyperv", "xen_netfront", "ena", "gve",
    "atlantic", "cxgb4", "be2net", "enic", "sfc", "forcedeth", "sky2", "pcnet32", "ne2k_pci", "alx", "atl1c",
    "xhci_pci", "ehci_pci", "usbnet", "cdc_ether", "cdc_ncm", "r8152", "asix", "ax88179_178a", "smsc95xx",
)  # fmt: skip
"""Drivers of NICs and what they hang on; the tree of a small kernel has only some of them."""
ESSENTIAL = (
    "af_packet", "unix", "virtio_rng", "virtio_blk", "nfs", "nfsv3", "nfsv4", "lockd", "sunrpc",
    "crc32c_generic",
)  # fmt: skip
"""Needed on every machine before the network can bring anything."""

_FIRMWARE = re.compile(rb"\0firmware=([^\0]+)")


class Compression(StrEnum):
    """How the archive is packed. The kernel must have been built to read it."""

    GZIP = "gzip"
    ZSTD = "zstd"


@dataclass(frozen=True, slots=True)
class InitramfsSpec:
    """What to build: kernel `version` below `root` (`lib/modules/VERSION`), for one installation.

    `ca_certificate` is PEM; `authorized_key` is a line of OpenSSH's authorized_keys. Without `compression` the smaller
    zstd is taken where the kernel's configuration says that it can unpack it, else gzip.
    """

    version: str
    root: Path
    output: Path
    ca_certificate: str
    authorized_key: str
    extra_modules: tuple[str, ...] = ()
    compression: Compression | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """What was built: sizes in bytes, and the modules that went in."""

    path: Path
    size: int
    unpacked: int
    modules: tuple[str, ...]


def script_files() -> dict[str, Entry]:
    """`/init`, the stages it sources, and the agent, which is also the library they share."""
    files: dict[str, Entry] = {}
    for item in resources.files("openqrm").joinpath("node", "initramfs").iterdir():
        place = "init" if item.name == "init" else f"lib/openqrm/{item.name}"
        files[place] = Entry.file(item.read_bytes(), 0o755)
    files["seed/agent"] = Entry.file(agent.script(), 0o755)
    return files


def module_files(tree: modules.ModuleTree, names: tuple[str, ...]) -> dict[str, Entry]:
    """The modules `names` need, their firmware, and tables that speak of these modules only."""
    paths = modules.load_order(names, tree.deps)
    base = f"lib/modules/{tree.version}"
    files: dict[str, Entry] = {}
    for path in paths:
        content = (tree.path / path).read_bytes()
        files[f"{base}/{path}"] = Entry.file(content)
        for match in _FIRMWARE.finditer(content):
            blob = tree.root / "lib/firmware" / match.group(1).decode()
            if blob.is_file():
                files[f"lib/firmware/{match.group(1).decode()}"] = Entry.file(blob.read_bytes())
    inside = {modules.name_of(path) for path in paths}
    aliases = tuple(alias for alias in tree.aliases if alias.module in inside)
    files[f"{base}/modules.dep"] = Entry.file(modules.render_dep({path: tree.deps[path] for path in paths}).encode())
    files[f"{base}/modules.alias"] = Entry.file(modules.render_alias(aliases).encode())
    return files


def _busybox_files(bundle: Mapping[str, Entry]) -> dict[str, Entry]:
    """/bin with busybox and its applets' names, for people and for root-mount hooks."""
    listed = subprocess.run([str(runtime.locate("busybox")), "--list"], capture_output=True, text=True, check=True)
    files: dict[str, Entry] = {"bin/busybox": bundle["rt/bin/busybox"], "sbin": Entry.link("bin")}
    # A link from busybox to itself would make every applet a loop of links.
    files.update({f"bin/{name}": Entry.link("busybox") for name in listed.stdout.split() if name != "busybox"})
    return files


def contents(spec: InitramfsSpec) -> tuple[dict[str, bytes | Entry], tuple[str, ...]]:
    """Every file of the initramfs, and the module paths among them.

    Raises ModulesError or RuntimeBundleError when something needed is missing.
    """
    tree = modules.read_tree(spec.root, spec.version)
    unknown = [name for name in spec.extra_modules if not modules.load_order([name], tree.deps)]
    if unknown:
        raise modules.ModulesError(f"kernel {spec.version} has no module {', '.join(unknown)}")
    names = (*ESSENTIAL, *NETWORK, *spec.extra_modules)
    bundle = runtime.gather()
    files: dict[str, bytes | Entry] = {}
    files.update(script_files())
    files.update(module_files(tree, names))
    files.update(_busybox_files(bundle))
    files.update({f"seed/{path}": entry for path, entry in bundle.items() if path != "rt/bin/busybox"})
    files["seed/ca.pem"] = spec.ca_certificate.encode()
    files["seed/authorized_keys"] = Entry.file(spec.authorized_key.strip().encode() + b"\n", 0o600)
    files["etc/passwd"] = b"root:x:0:0:root:/root:/bin/sh\n"
    files["etc/shells"] = b"/bin/sh\n"
    files["etc/group"] = b"root:x:0:\n"
    files["dev/console"] = Entry.character_device(5, 1)
    files["root"] = Entry.directory(0o700)
    for name in ("proc", "sys", "run", "tmp", "root-mnt"):
        files[name] = Entry.directory()
    return files, modules.load_order(names, tree.deps)


def best_compression(spec: InitramfsSpec) -> Compression:
    """zstd (12 MB against 13 MB for gzip, as fast to unpack) if this machine can make it and the kernel read it."""
    config = spec.root / "boot" / f"config-{spec.version}"
    readable = config.is_file() and "CONFIG_RD_ZSTD=y" in config.read_text().splitlines()
    return Compression.ZSTD if readable and shutil.which("zstd") else Compression.GZIP


def _compress(data: bytes, compression: Compression) -> bytes:
    if compression is Compression.ZSTD:
        command = ["zstd", "-12", "-T1", "-q", "-c"]
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout
    return gzip.compress(data, compresslevel=9, mtime=0)


def build(spec: InitramfsSpec) -> Built:
    """Build the initramfs that `spec` describes and put it at `spec.output` (whole or not at all).

    The same inputs give the same bytes. Raises ModulesError or RuntimeBundleError when something needed is missing,
    OSError when the output cannot be written.
    """
    files, paths = contents(spec)
    unpacked = cpio.archive(files)
    packed = _compress(unpacked, spec.compression or best_compression(spec))
    # Zeros up to a multiple of 4, so that a second archive (a boot ticket) can simply be appended.
    packed += b"\0" * (-len(packed) % 4)
    spec.output.parent.mkdir(parents=True, exist_ok=True)
    partial = spec.output.with_name(spec.output.name + ".part")
    partial.write_bytes(packed)
    partial.replace(spec.output)
    return Built(spec.output, len(packed), len(unpacked), paths)
