"""Declaration of the `nbd-storage` plug-in."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from openqrm.domain.model import Attr
from openqrm.plugin_api.drivers import Cap, Export, Medium, StorageType
from openqrm.plugin_api.plugin import Dependency, Family, NodeFile, Plugin, Requires

FEWEST_PORTS = 16


class NbdSettings(BaseModel):
    """How volumes are exported."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_port: Annotated[
        int, Field(ge=1024, le=65535), Attr("First port", help="each volume has a TCP port of its own", immutable=True)
    ] = 20809
    last_port: Annotated[int, Field(ge=1024, le=65535), Attr("Last port", immutable=True)] = 24904

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.last_port - self.first_port + 1 < FEWEST_PORTS:
            raise ValueError(f"there have to be at least {FEWEST_PORTS} ports")
        return self


PLUGIN = Plugin(
    name="nbd-storage",
    family=Family.STORAGE,
    title="NBD storage",
    summary="Block devices of a storage host, handed to machines by NBD over TLS with a key for each grant",
    module="openqrm.plugins.storage.nbd",
    provides=(
        Export(
            name="nbd",
            medium=Medium.BLOCK,
            deployment="nbd-root",
            capabilities=frozenset({Cap.AUTHORIZE, Cap.REVOKE_PROOF, Cap.SHARED}),
            driver="openqrm.plugins.storage.nbd.driver:NbdExport",
            spec=NbdSettings,
            secrets=("psk",),
        ),
        StorageType(name="nbd-storage", title="NBD storage", pool="file", export="nbd"),
    ),
    node_files=(NodeFile(name="root-mount.nbd-root", path="node/root-mount"),),
    node_programs=(Dependency("qemu-nbd", "qemu-utils"),),
    requires=Requires(plugins=("file-storage",)),
    about=(
        "The storage host needs nbdkit with TLS. Machines use qemu-nbd (qemu-utils on this server), which holds the "
        "root's connection: nbd-client neither knows pre-shared keys nor survives an outage of the server."
    ),
)
