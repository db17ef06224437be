"""Declaration of the `btrfs-storage` plug-in: a pool of btrfs subvolumes."""

from __future__ import annotations

from typing import Annotated

from openqrm.domain.model import Attr
from openqrm.plugin_api.drivers import Cap, Medium, Pool
from openqrm.plugin_api.places import Directory, InDirectory
from openqrm.plugin_api.plugin import Family, Plugin


class BtrfsSettings(InDirectory):
    """Where the subvolumes are."""

    directory: Annotated[
        Directory,
        Attr("Directory", help="on a btrfs of the storage host; each volume is a subvolume in it", immutable=True),
    ] = "/srv/openqrm"


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
