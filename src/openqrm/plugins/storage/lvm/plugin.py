"""Declaration of the `lvm-storage` plug-in: pools of logical volumes, handed out as devices or as trees."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from openqrm.domain.model import Attr
from openqrm.plugin_api.drivers import Cap, Medium, Pool
from openqrm.plugin_api.plugin import Family, Plugin

NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"
"""Names of volume groups and of thin pools that need no quoting anywhere."""


class LvmSettings(BaseModel):
    """Where the volumes are, and how they are made."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[str] = "block"

    volume_group: Annotated[
        str,
        Field(pattern=NAME, max_length=24),
        Attr("Volume group", help="on the storage host; it may hold volumes of others too", immutable=True),
    ] = "vol"
    thin: Annotated[
        bool,
        Attr("Thin", help="clones and snapshots share blocks, and volumes take what is written", immutable=True),
    ] = True
    thin_pool: Annotated[
        str,
        Field(pattern=NAME, max_length=24),
        Attr("Thin pool", help="made with the first volume when it is not there", immutable=True),
    ] = "openqrm"
    thin_pool_mb: Annotated[
        int,
        Field(ge=0, le=1 << 34),
        Attr("Size of the thin pool", unit="MB", help="when it is made; 0: nine tenths of what is free then"),
    ] = 0
    default_size_mb: Annotated[
        int,
        Field(ge=16, le=1 << 30),
        Attr("Default size", unit="MB", help="of a volume that is made without a size"),
    ] = 10240

    @property
    def place(self) -> str:
        """A volume group may have volumes of both kinds, and several thin pools: each is a place of its own."""
        return f"{self.volume_group}/{self.kind}" + (f"/{self.thin_pool}" if self.thin else "")


class LvmTreeSettings(LvmSettings):
    """The same; each volume has a file system, which the storage host mounts at /VOLUME-GROUP/NAME."""

    kind: ClassVar[str] = "tree"


_CAPABILITIES = frozenset({Cap.CLONE, Cap.CLONE_COW, Cap.FILL, Cap.SNAPSHOT, Cap.RESIZE, Cap.LIST})
_DRIVER = "openqrm.plugins.storage.lvm.driver:LvmPool"

PLUGIN = Plugin(
    name="lvm-storage",
    family=Family.STORAGE,
    title="LVM storage",
    summary="Logical volumes: clones and snapshots in an instant, for NFS, iSCSI, AoE and NBD",
    module="openqrm.plugins.storage.lvm",
    provides=(
        Pool("lvm", Medium.BLOCK, _CAPABILITIES, _DRIVER, LvmSettings),
        Pool("lvm-tree", Medium.TREE, _CAPABILITIES, _DRIVER, LvmTreeSettings, prefix="lvm"),
    ),
    about="The storage host needs a volume group with free space, lvm2, thin-provisioning-tools and e2fsprogs.",
)
