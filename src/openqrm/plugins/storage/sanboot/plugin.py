"""Declaration of the `sanboot-storage` plug-in: iSCSI and AoE, used by the boot loader in place of our initramfs."""

from __future__ import annotations

from openqrm.plugin_api.drivers import Export, Medium, Start, StorageType
from openqrm.plugin_api.plugin import Family, Plugin, Requires

PLUGIN = Plugin(
    name="sanboot-storage",
    family=Family.STORAGE,
    title="SAN boot storage",
    summary="Whole disks over iSCSI or AoE, attached by the boot loader, for any operating system",
    module="openqrm.plugins.storage.sanboot",
    provides=(
        Export(
            name="sanboot-iscsi",
            medium=Medium.BLOCK,
            deployment="sanboot-iscsi",
            through="iscsi",
            start=Start.SAN,
        ),
        Export(
            name="sanboot-aoe",
            medium=Medium.BLOCK,
            deployment="sanboot-aoe",
            through="aoe",
            start=Start.SAN,
        ),
        StorageType(name="sanboot-iscsi", title="SAN boot over iSCSI", pool="file", export="sanboot-iscsi"),
        StorageType(name="sanboot-aoe", title="SAN boot over AoE", pool="file", export="sanboot-aoe"),
    ),
    requires=Requires(plugins=("file-storage", "iscsi-storage", "aoe-storage", "dhcpd", "tftpd")),
    about=(
        "The system on the disk must know how to go on from a SAN: it finds target and password in the iBFT, the "
        "firmware table that the boot loader leaves. A disk that is empty stays attached, and the machine goes on with "
        "its next boot device, from which a system can be installed on it."
    ),
)
