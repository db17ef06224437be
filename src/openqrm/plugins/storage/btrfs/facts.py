"""What a storage host says about its directory of btrfs subvolumes."""

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
    from openqrm.plugins.storage.btrfs.plugin import BtrfsSettings

NO_DIRECTORY = 3
"""Exit status of `pool-facts` when the pool's directory is not there."""


@dataclass(frozen=True)
class PoolFacts:
    """A directory of subvolumes. `tools`: btrfs(8) is installed. `quota`: sizes are counted and enforced.

    `volumes` has the limit in MB of each subvolume by name; 0: none.
    """

    free_mb: int
    file_system: str
    tools: bool
    quota: bool
    volumes: dict[str, int]
    leftovers: tuple[str, ...]


@cache
def script(*names: str) -> str:
    """Shell scripts of this plug-in, one after the other."""
    folder = files(__package__).joinpath("scripts")
    return "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def pool_fact(context: StorageContext, settings: BtrfsSettings) -> Fact[PoolFacts | None]:
    """None when the directory is not there, for example because its file system is not mounted."""
    return Fact(
        name="btrfs-pool",
        host=context.host,
        argv=("sh", "-c", script("pool-facts"), "pool-facts", settings.directory),
        parse=parse_pool,
        absent=(NO_DIRECTORY,),
        missing=None,
    )


def parse_pool(output: str) -> PoolFacts:
    """The output of `pool-facts`; a subvolume whose name no volume can have is none. ValueError or KeyError."""
    volumes: dict[str, int] = {}
    leftovers: list[str] = []
    single: dict[str, str] = {}
    for line in output.splitlines():
        word, *values = line.split()
        if word == "leftover":
            leftovers.append(line.split(" ", 1)[1])
        elif word == "volume":
            name, limit = values
            if len(name) <= 63 and re.fullmatch(NAME_PATTERN, name):
                volumes[name] = 0 if limit == "none" else -(-int(limit) // 2**20)
        else:
            single[word] = values[0]
    return PoolFacts(
        free_mb=int(single["free_mb"]),
        file_system=single["type"],
        tools=single["tools"] == "yes",
        quota=single["quota"] == "yes",
        volumes=volumes,
        leftovers=tuple(leftovers),
    )
