"""Declaration of the `zfs-storage` plug-in: pools of ZFS datasets and of zvols."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from openqrm.domain.model import Attr
from openqrm.plugin_api.drivers import Cap, Medium, Pool
from openqrm.plugin_api.plugin import Family, Plugin

DATASET = r"^[A-Za-z][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*$"
DIRECTORY = r"^((/[A-Za-z0-9_][A-Za-z0-9._-]*)+)?$"
"""An absolute path that needs no quoting in the configuration of any server, or nothing."""


class InDataset(BaseModel):
    """Where the volumes are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: Annotated[
        str,
        Field(pattern=DATASET, max_length=120),
        Attr("Dataset", help="on the storage host, for this storage alone; each volume is made in it", immutable=True),
    ] = "tank/openqrm"

    @property
    def place(self) -> str:
        """The dataset: nobody else's volumes may be in it."""
        return self.dataset


class ZfsSettings(InDataset):
    """Where the zvols are."""

    default_size_mb: Annotated[
        int,
        Field(ge=16, le=1 << 30),
        Attr("Default size", unit="MB", help="of a zvol that is made without a size"),
    ] = 10240


class ZfsTreeSettings(InDataset):
    """Where the datasets are, and where the storage host shows them."""

    directory: Annotated[
        str,
        Field(pattern=DIRECTORY, max_length=200),
        Attr("Directory", help="volumes are mounted below it; empty: / and the dataset's name", immutable=True),
    ] = ""


_CAPABILITIES = frozenset({Cap.CLONE, Cap.CLONE_COW, Cap.FILL, Cap.SNAPSHOT, Cap.RESIZE, Cap.LIST})
_DRIVER = "openqrm.plugins.storage.zfs.driver"

PLUGIN = Plugin(
    name="zfs-storage",
    family=Family.STORAGE,
    title="ZFS storage",
    summary="ZFS datasets and zvols: clones and snapshots in an instant, whatever their size",
    module="openqrm.plugins.storage.zfs",
    provides=(
        Pool("zfs-tree", Medium.TREE, _CAPABILITIES, f"{_DRIVER}:ZfsTreePool", ZfsTreeSettings, prefix="zfs"),
        Pool("zfs", Medium.BLOCK, _CAPABILITIES, f"{_DRIVER}:ZfsPool", ZfsSettings),
    ),
    about="The storage host needs ZFS and a pool with a dataset for openQRM; block devices need ZFS in its kernel.",
)
