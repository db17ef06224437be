"""Declaration of the `file-storage` plug-in: a pool of raw image files, which block exports hand to machines."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from openqrm.domain.model import Attr
from openqrm.plugin_api.drivers import Cap, Medium, Pool
from openqrm.plugin_api.places import Directory, InDirectory
from openqrm.plugin_api.plugin import Family, Plugin


class FileSettings(InDirectory):
    """Where the image files are, and what they may promise."""

    directory: Annotated[
        Directory,
        Attr("Directory", help="on the storage host; each volume is a file NAME.img in it", immutable=True),
    ] = "/srv/openqrm-images"
    default_size_mb: Annotated[
        int,
        Field(ge=16, le=1 << 30),
        Attr("Default size", unit="MB", help="of a volume that is made without a size"),
    ] = 10240
    overcommit: Annotated[
        bool,
        Attr("Overcommit", help="allow volumes that together are larger than the file system they are on"),
    ] = False


PLUGIN = Plugin(
    name="file-storage",
    family=Family.STORAGE,
    title="Image files",
    summary="Sparse raw image files in a directory of a storage host, for exports that hand out block devices",
    module="openqrm.plugins.storage.file",
    provides=(
        Pool(
            name="file",
            medium=Medium.BLOCK,
            capabilities=frozenset({Cap.CLONE, Cap.CLONE_COW, Cap.FILL, Cap.SNAPSHOT, Cap.RESIZE, Cap.LIST}),
            driver="openqrm.plugins.storage.file.driver:FilePool",
            spec=FileSettings,
        ),
    ),
    about=(
        "The storage host needs e2fsprogs and util-linux, which every Linux has, and xfsprogs or btrfs-progs to grow "
        "volumes that hold such a file system, and qemu-utils to take disk images. Copies take no time "
        "and no room on btrfs and on XFS with reflink."
    ),
)
