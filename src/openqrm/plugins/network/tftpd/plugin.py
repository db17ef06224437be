"""Declaration of the `tftpd` plug-in."""

from __future__ import annotations

from openqrm.plugin_api.plugin import Dependency, Family, Plugin, Requires, Service

PLUGIN = Plugin(
    name="tftpd",
    family=Family.NETWORK,
    title="TFTP server",
    summary="Hands iPXE to firmware that boots by PXE; everything after that goes over HTTP",
    module="openqrm.plugins.network.tftpd",
    services=(Service(name="in-tftpd", prepare="openqrm.plugins.network.tftpd.service:prepare"),),
    requires=Requires(
        commands=(Dependency("in.tftpd", "tftpd-hpa"), Dependency("/usr/lib/ipxe/undionly.kpxe", "ipxe")),
    ),
)
