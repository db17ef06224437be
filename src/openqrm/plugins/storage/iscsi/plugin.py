"""Declaration of the `iscsi-storage` plug-in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from openqrm.domain.model import Attr
from openqrm.plugin_api.drivers import Cap, Export, Medium, StorageType
from openqrm.plugin_api.plugin import Dependency, Family, NodeFile, Plugin, Requires


class IscsiSettings(BaseModel):
    """How volumes are exported."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: Annotated[
        Literal["auto", "tgt", "lio"],
        Attr("iSCSI server", help="auto: the one that runs on the storage host, tgt before the kernel's (LIO)"),
    ] = "auto"
    port: Annotated[
        int,
        Field(ge=1, le=65535),
        Attr("Port", help="where machines connect; tgt must listen there, LIO is told to"),
    ] = 3260


PLUGIN = Plugin(
    name="iscsi-storage",
    family=Family.STORAGE,
    title="iSCSI storage",
    summary="Block volumes of a storage host, handed to machines over iSCSI with CHAP",
    module="openqrm.plugins.storage.iscsi",
    provides=(
        Export(
            name="iscsi",
            medium=Medium.BLOCK,
            deployment="iscsi-root",
            capabilities=frozenset({Cap.AUTHORIZE, Cap.REVOKE_PROOF, Cap.SHARED}),
            driver="openqrm.plugins.storage.iscsi.driver:IscsiExport",
            spec=IscsiSettings,
            secrets=("chap",),
        ),
        StorageType(name="iscsi-storage", title="iSCSI storage", pool="file", export="iscsi"),
    ),
    node_files=(NodeFile(name="root-mount.iscsi-root", path="node/root-mount"),),
    node_programs=tuple(Dependency(name, "open-iscsi") for name in ("iscsistart", "iscsid", "iscsiadm")),
    requires=Requires(plugins=("file-storage",)),
    about=(
        "The storage host needs an iSCSI server: tgt, or the kernel's (LIO) with python3-rtslib-fb. The server of the "
        "installation needs open-iscsi, whose programs it hands to machines."
    ),
)
