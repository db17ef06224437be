"""Running Debian's tftpd-hpa in the foreground over a directory of our own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from openqrm.domain.errors import MissingDependencyError
from openqrm.plugin_api.plugin import ServiceCommand

if TYPE_CHECKING:
    from openqrm.plugin_api.calls import ServiceContext

LOADERS = ("undionly.kpxe", "snponly.efi", "ipxe.efi")
"""BIOS PXE, UEFI over the firmware's own network driver, UEFI with iPXE's drivers."""
SOURCE = Path("/usr/lib/ipxe")


async def prepare(context: ServiceContext) -> ServiceCommand:
    """Copy the boot loaders; MissingDependencyError without server or loaders."""
    server = shutil.which("in.tftpd") or shutil.which("in.tftpd", path="/usr/sbin")
    if server is None:
        raise MissingDependencyError("in.tftpd is not installed", remedy="apt-get install -y tftpd-hpa")
    root = Path(context.installation["boot_dir"]) / "loaders"
    copy_loaders(root)
    address = str(context.installation["address"])
    return ServiceCommand((server, "--foreground", "--secure", "--ipv4", "--address", f"{address}:69", str(root)))


def copy_loaders(root: Path, source: Path = SOURCE) -> None:
    """Put iPXE's loaders where TFTP, and the boot listener for UEFI HTTP boot, hand them out."""
    missing = [name for name in LOADERS if not (source / name).exists()]
    if missing:
        raise MissingDependencyError(
            f"iPXE's boot loaders are not installed: {', '.join(missing)} in {source}",
            remedy="apt-get install -y --no-install-recommends ipxe",
        )
    root.mkdir(parents=True, exist_ok=True)
    for name in LOADERS:
        new = root / f"{name}.new"
        shutil.copyfile(source / name, new)
        new.chmod(0o644)
        new.replace(root / name)
