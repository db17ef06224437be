"""Declaration of the `aoe-storage` plug-in."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from openqrm.domain.model import Attr
from openqrm.plugin_api.drivers import Cap, Export, Medium, StorageType
from openqrm.plugin_api.plugin import Family, NodeFile, Plugin, Requires


class AoeSettings(BaseModel):
    """How volumes are exported."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    interface: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$"),
        Attr("Network interface", help="of the storage host, to the machines; auto: the one with its address"),
    ] = "auto"
    synchronous: Annotated[
        bool,
        Attr("Synchronous writes", help="a write is on the disk when the machine is told so; AoE has no other way"),
    ] = True


PLUGIN = Plugin(
    name="aoe-storage",
    family=Family.STORAGE,
    title="AoE storage",
    summary="Block devices of a storage host, handed to machines by ATA over Ethernet",
    module="openqrm.plugins.storage.aoe",
    provides=(
        Export(
            name="aoe",
            medium=Medium.BLOCK,
            deployment="aoe-root",
            capabilities=frozenset({Cap.AUTHORIZE, Cap.REVOKE_PROOF, Cap.SHARED}),
            driver="openqrm.plugins.storage.aoe.driver:AoeExport",
            spec=AoeSettings,
        ),
        StorageType(name="aoe-storage", title="AoE storage", pool="file", export="aoe"),
    ),
    node_files=(NodeFile(name="root-mount.aoe-root", path="node/root-mount"),),
    requires=Requires(plugins=("file-storage",)),
    about=(
        "The storage host needs vblade, and the machines have to be on its Ethernet segment: AoE is not routed. It "
        "knows no password: who can send with a machine's MAC address on that network can read and write its volume."
    ),
)
