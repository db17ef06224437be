"""What a storage host says about its directory of image files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from openqrm.domain.model import NAME_PATTERN
from openqrm.plugin_api.facts import Fact

if TYPE_CHECKING:
    from openqrm.plugin_api.drivers import StorageContext
    from openqrm.plugins.storage.file.plugin import FileSettings

NO_DIRECTORY = 3
"""Exit status of `pool-facts` when the pool's directory is not there."""


@dataclass(frozen=True)
class FileFact:
    """An image file: how large it is for machines, and how much of that has blocks on the host."""

    name: str
    size_mb: int
    used_mb: int


@dataclass(frozen=True)
class PoolFacts:
    """A directory of image files. `reflink`: copies share blocks until they are changed."""

    free_mb: int
    reflink: bool
    volumes: tuple[FileFact, ...]
    leftovers: tuple[str, ...]

    @property
    def promised_mb(self) -> int:
        """What the image files may still take of the free space."""
        return sum(max(volume.size_mb - volume.used_mb, 0) for volume in self.volumes)

    def volume(self, name: str) -> FileFact | None:
        """The image file of a volume, if there is one."""
        return next((volume for volume in self.volumes if volume.name == name), None)


@cache
def script(*names: str) -> str:
    """Shell scripts of this plug-in, one after the other."""
    folder = files(__package__).joinpath("scripts")
    return "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def pool_fact(context: StorageContext, settings: FileSettings) -> Fact[PoolFacts | None]:
    """None when the directory is not there, for example because its file system is not mounted."""
    return Fact(
        name="file-pool",
        host=context.host,
        argv=("sh", "-c", script("pool-facts"), "pool-facts", settings.directory),
        parse=parse_pool,
        absent=(NO_DIRECTORY,),
        missing=None,
    )


def parse_pool(output: str) -> PoolFacts:
    """The output of `pool-facts`; a file whose name no volume can have is none. ValueError or KeyError."""
    volumes: list[FileFact] = []
    leftovers: list[str] = []
    single: dict[str, str] = {}
    for line in output.splitlines():
        word, *values = line.split()
        if word == "leftover":
            leftovers.append(line.split(" ", 1)[1])
        elif word == "volume":
            name, size, used = values
            if len(name) <= 63 and re.fullmatch(NAME_PATTERN, name):
                volumes.append(FileFact(name, -(-int(size) // 2**20), -(-int(used) // 2**20)))
        else:
            single[word] = values[0]
    return PoolFacts(
        free_mb=int(single["free_mb"]),
        reflink=single.get("reflink") == "yes",
        volumes=tuple(volumes),
        leftovers=tuple(leftovers),
    )
