"""Declaration of the `btrfs-storage` plug-in: a pool of btrfs subvolumes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from openqrm.domain.model import Attr
from openqrm.plugin_api.drivers import Cap, Medium, Pool
from openqrm.plugin_api.plugin import Family, Plugin

DIRECTORY = r"^(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$"
"""An absolute path that needs no quoting in /etc/fstab or in the configuration of any server."""


class BtrfsSettings(BaseModel):
    """Where the subvolumes are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    directory: Annotated[
        str,
        Field(pattern=DIRECTORY, max_length=200),
        Attr("Directory", help="on a btrfs of the storage host; each volume is a subvolume in it", immutable=True),
    ] = "/srv/openqrm"

    @property
    def place(self) -> str:
        """Where it is by our records; a symbolic link to another pool is not seen."""
        return self.directory


PLUGIN = Plugin(
    name="btrfs-storage",
    family=Family.STORAGE,
    title="btrfs storage",
    summary="Subvolumes of a btrfs as volumes: clones and snapshots in an instant, whatever their size",
    module="openqrm.plugins.storage.btrfs",
    provides=(
        Pool(
            name="btrfs",
            medium=Medium.TREE,
            capabilities=frozenset({Cap.CLONE, Cap.CLONE_COW, Cap.FILL, Cap.SNAPSHOT, Cap.RESIZE, Cap.LIST}),
            driver="openqrm.plugins.storage.btrfs.driver:BtrfsPool",
            spec=BtrfsSettings,
        ),
    ),
    about="The storage host needs btrfs-progs, and a btrfs mounted at the directory or above it.",
)
