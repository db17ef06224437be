"""Declaration of the `local-storage` plug-in: whole disks, kept in a directory that NFS hands to the machine."""

from __future__ import annotations

from openqrm.plugin_api.drivers import Export, Medium, Start, StorageType
from openqrm.plugin_api.plugin import Dependency, Family, NodeFile, Plugin, Requires

PLUGIN = Plugin(
    name="local-storage",
    family=Family.STORAGE,
    title="Local storage",
    summary="All disks of a machine as an image, written to the disks of any other, which then boots from them",
    module="openqrm.plugins.storage.local_storage",
    provides=(
        Export(
            name="local",
            medium=Medium.TREE,
            deployment="local-storage",
            through="nfs",
            start=Start.DISK,
        ),
        StorageType(name="local-storage", title="Local storage", pool="dir", export="local"),
    ),
    node_files=(NodeFile(name="root-mount.local-storage", path="node/root-mount"),),
    node_programs=(Dependency("zstd", "zstd"),),
    requires=Requires(plugins=("dir-storage", "nfs-storage")),
    about=(
        "Disks are kept in pieces by their checksum, compressed, and empty pieces not at all: what two images on one "
        "volume have in common is there once, and a broken transfer goes on where it stopped."
    ),
)
