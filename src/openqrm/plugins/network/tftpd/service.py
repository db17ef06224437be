"""Running Debian's tftpd-hpa in the foreground over a directory of our own."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from openqrm.domain.errors import ConflictError, MissingDependencyError
from openqrm.plugin_api.plugin import ServiceCommand

if TYPE_CHECKING:
    from openqrm.plugin_api.calls import ServiceContext

LOADERS = ("undionly.kpxe", "snponly.efi", "ipxe.efi")
"""BIOS PXE, UEFI over the firmware's own network driver, UEFI with iPXE's drivers."""
PORT = 69
SOURCE = Path("/usr/lib/ipxe")


async def prepare(context: ServiceContext) -> ServiceCommand:
    """Copy the boot loaders; MissingDependencyError without server or loaders."""
    server = shutil.which("in.tftpd") or shutil.which("in.tftpd", path="/usr/sbin")
    if server is None:
        raise MissingDependencyError("in.tftpd is not installed", remedy="apt-get install -y tftpd-hpa")
    root = Path(context.installation["boot_dir"]) / "loaders"
    copy_loaders(root)
    address = str(context.installation["address"])
    _check_port(address)
    return ServiceCommand((server, "--foreground", "--secure", "--ipv4", "--address", f"{address}:{PORT}", str(root)))


def _check_port(address: str) -> None:
    """ConflictError when the port is taken: the server itself would tell that to syslog alone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, PORT))
        except OSError as error:
            raise ConflictError(
                f"TFTP cannot be served at {address}: {error.strerror}",
                remedy=f"end what has UDP port {PORT} (Debian's own: systemctl disable --now tftpd-hpa), "
                "or correct the address of this installation",
            ) from error


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
