"""Declaration of the `dir-storage` plug-in: a pool of directories, which exports of trees hand to machines."""

from __future__ import annotations

from typing import Annotated

from openqrm.domain.model import Attr
from openqrm.plugin_api.drivers import Cap, Medium, Pool
from openqrm.plugin_api.places import Directory, InDirectory
from openqrm.plugin_api.plugin import Family, Plugin


class DirSettings(InDirectory):
    """Where the volumes are."""

    directory: Annotated[
        Directory,
        Attr("Directory", help="on the storage host; each volume is a directory in it", immutable=True),
    ] = "/srv/openqrm"


PLUGIN = Plugin(
    name="dir-storage",
    family=Family.STORAGE,
    title="Directories",
    summary="Directories of a storage host as volumes, for exports that hand out trees of files",
    module="openqrm.plugins.storage.dir",
    provides=(
        Pool(
            name="dir",
            medium=Medium.TREE,
            capabilities=frozenset({Cap.CLONE, Cap.CLONE_COW, Cap.FILL, Cap.LIST}),
            driver="openqrm.plugins.storage.dir.driver:DirPool",
            spec=DirSettings,
        ),
    ),
    about=(
        "The storage host needs GNU tar and coreutils, which every Linux has, and attr (getfattr) if images have "
        "extended attributes. Copies take no time and no room on btrfs and on XFS with reflink."
    ),
)
