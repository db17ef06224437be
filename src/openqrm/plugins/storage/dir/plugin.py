"""Declaration of the `dir-storage` plug-in: a pool of directories, which exports of trees hand to machines."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from openqrm.domain.model import Attr
from openqrm.plugin_api.drivers import Cap, Medium, Pool
from openqrm.plugin_api.plugin import Family, Plugin

DIRECTORY = r"^(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$"
"""An absolute path that needs no quoting in the configuration of any server."""


class DirSettings(BaseModel):
    """Where the volumes are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    directory: Annotated[
        str,
        Field(pattern=DIRECTORY, max_length=200),
        Attr("Directory", help="on the storage host; each volume is a directory in it", immutable=True),
    ] = "/srv/openqrm"

    @property
    def place(self) -> str:
        """Where it is by our records; a symbolic link to another pool is not seen."""
        return self.directory


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
