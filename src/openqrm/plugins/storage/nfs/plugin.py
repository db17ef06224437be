"""Declaration of the `nfs-storage` plug-in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from openqrm.domain.model import Attr
from openqrm.plugin_api.drivers import Cap, Export, Medium, StorageType
from openqrm.plugin_api.plugin import Family, NodeFile, Plugin, Requires

DIRECTORY = r"^(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$"
"""An absolute path that needs no quoting in the configuration of any NFS server."""


class NfsSettings(BaseModel):
    """How volumes are exported."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: Annotated[
        Literal["auto", "ganesha", "kernel"],
        Attr("NFS server", help="auto: the one that runs on the storage host, nfs-ganesha before the kernel's"),
    ] = "auto"
    ganesha_exports: Annotated[
        str,
        Field(pattern=DIRECTORY, max_length=200),
        Attr("Exports of nfs-ganesha", help="a directory that ganesha.conf reads by %dir", immutable=True),
    ] = "/etc/ganesha/exports.d"
    kernel_exports: Annotated[
        str,
        Field(pattern=DIRECTORY, max_length=200),
        Attr("Exports of the kernel's server", help="the directory that exportfs(8) reads", immutable=True),
    ] = "/etc/exports.d"
    mount_options: Annotated[
        str,
        Field(pattern=r"^[a-z0-9=,._]+$", max_length=200),
        Attr("Mount options", help="of the root file system on machines"),
    ] = "vers=4.1,hard"


_DRIVER = "openqrm.plugins.storage.nfs.driver"

PLUGIN = Plugin(
    name="nfs-storage",
    family=Family.STORAGE,
    title="NFS storage",
    summary="Directories of a storage host, handed to machines over NFS",
    module="openqrm.plugins.storage.nfs",
    provides=(
        Export(
            name="nfs",
            medium=Medium.TREE,
            deployment="nfs-root",
            capabilities=frozenset({Cap.AUTHORIZE, Cap.REVOKE_PROOF, Cap.SHARED, Cap.LEND}),
            driver=f"{_DRIVER}:NfsExport",
            spec=NfsSettings,
        ),
        StorageType(name="nfs-storage", title="NFS storage", pool="dir", export="nfs"),
    ),
    node_files=(NodeFile(name="root-mount.nfs-root", path="node/root-mount"),),
    requires=Requires(plugins=("dir-storage",)),
    about=(
        "The storage host needs an NFS server: nfs-ganesha with D-Bus and `%dir /etc/ganesha/exports.d` in its "
        "configuration, or the kernel's (nfs-kernel-server)."
    ),
)
