"""Declaration of the `local-server` plug-in."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from openqrm.domain.model import Attr
from openqrm.plugin_api.drivers import Cap, Export, Medium, Pool, StorageType
from openqrm.plugin_api.plugin import Family, NodeFile, Plugin

DEVICE = r"^(/dev/[a-z][a-z0-9]{1,30}|(UUID|LABEL|PARTUUID|PARTLABEL)=[A-Za-z0-9][A-Za-z0-9_.-]{0,62})$"
"""A partition by its kernel name, or by what it carries, as in fstab(5)."""


class PartitionSettings(BaseModel):
    """Which partition of the machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Annotated[
        str,
        Field(pattern=DEVICE),
        Attr(
            "Partition",
            help="of the machine: /dev/vda1, or UUID=, LABEL=, PARTUUID=, PARTLABEL=, which name it on any disk",
            immutable=True,
        ),
    ]

    @property
    def place(self) -> str:
        """The partition as it is named here; that two names mean one partition is not seen."""
        return self.device

    @property
    def volume(self) -> str:
        """The one name a volume may have: there is one volume in a partition."""
        last = self.device.rpartition("/")[2].rpartition("=")[2].lower()
        return re.sub(r"[^a-z0-9]+", "-", last).strip("-")


_DRIVER = "openqrm.plugins.storage.local_server.driver"

PLUGIN = Plugin(
    name="local-server",
    family=Family.STORAGE,
    title="Local installed server",
    summary="A system on a partition of the machine itself; kernel and initramfs come over the network",
    module="openqrm.plugins.storage.local_server",
    provides=(
        Pool(
            name="partition",
            medium=Medium.MACHINE,
            capabilities=frozenset(),
            driver=f"{_DRIVER}:PartitionPool",
            spec=PartitionSettings,
        ),
        Export(
            name="local-server",
            medium=Medium.MACHINE,
            deployment="local-server",
            capabilities=frozenset({Cap.AUTHORIZE}),
            driver=f"{_DRIVER}:LocalServerExport",
            own_machine=True,
        ),
        StorageType(name="local-server", title="Local installed server", pool="partition", export="local-server"),
    ),
    node_files=(NodeFile(name="root-mount.local-server", path="node/root-mount"),),
    about=(
        "One storage for each partition, on the machine that has it. The partition may be empty: it gets a file "
        "system when an image is installed into it."
    ),
)
