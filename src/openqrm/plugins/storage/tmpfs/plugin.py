"""Declaration of the `tmpfs-storage` plug-in."""

from __future__ import annotations

from openqrm.plugin_api.drivers import Cap, Export, Medium, Pool, StorageType
from openqrm.plugin_api.plugin import Family, NodeFile, Plugin

_DRIVER = "openqrm.plugins.storage.tmpfs.driver"

PLUGIN = Plugin(
    name="tmpfs-storage",
    family=Family.STORAGE,
    title="tmpfs storage",
    summary="Root file systems in the memory of machines, filled anew from another image at each boot",
    module="openqrm.plugins.storage.tmpfs",
    provides=(
        Pool(name="memory", medium=Medium.MACHINE, capabilities=frozenset(), driver=f"{_DRIVER}:MemoryPool"),
        Export(
            name="tmpfs",
            medium=Medium.MACHINE,
            deployment="tmpfs",
            capabilities=frozenset({Cap.AUTHORIZE, Cap.SHARED}),
            driver=f"{_DRIVER}:TmpfsExport",
            in_memory=True,
        ),
        StorageType(name="tmpfs-storage", title="tmpfs storage", pool="memory", export="tmpfs"),
    ),
    node_files=(NodeFile(name="root-mount.tmpfs", path="node/root-mount"),),
    about=(
        "A volume is a size, nothing more: what an appliance writes is gone when it stops. Its image says which image "
        "on an NFS storage it is filled from."
    ),
)
