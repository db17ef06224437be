"""What a storage host says about a ZFS dataset and those in it."""

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
    from openqrm.plugins.storage.zfs.plugin import ZfsSettings


@dataclass(frozen=True)
class Dataset:
    """A volume: `kind` is `filesystem` or `volume` (a zvol); a file system's size is its limit, 0: none."""

    name: str
    kind: str
    size_mb: int


@dataclass(frozen=True)
class ZfsFacts:
    """`tools`: zfs(8) is installed. `kernel`: so is the kernel's module. `free_mb` is None without the dataset."""

    tools: bool
    kernel: bool
    free_mb: int | None
    volumes: tuple[Dataset, ...]
    leftovers: tuple[str, ...]

    def volume(self, name: str) -> Dataset | None:
        """The volume of that name."""
        return next((volume for volume in self.volumes if volume.name == name), None)


@cache
def script(*names: str) -> str:
    """Shell scripts of this plug-in, one after the other."""
    folder = files(__package__).joinpath("scripts")
    return "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def zfs_fact(context: StorageContext, settings: ZfsSettings) -> Fact[ZfsFacts]:
    """What is free, the datasets there are, and what was left half done."""
    dataset = settings.dataset
    return Fact(
        name="zfs-pool",
        host=context.host,
        argv=("sh", "-c", script("pool-facts"), "pool-facts", dataset),
        parse=lambda output: parse(output, dataset),
    )


def parse(output: str, dataset: str) -> ZfsFacts:
    """The output of `pool-facts`: a line of words, then of zfs-get(8). ValueError or KeyError for something else."""
    first, _, rest = output.partition("\n")
    rows: dict[str, dict[str, str]] = {}
    for line in rest.splitlines():
        name, key, value = line.split("\t")
        rows.setdefault(name, {})[key] = value
    origins = {row["origin"] for row in rows.values()}
    volumes, leftovers = [], []
    for name, row in rows.items():
        inner = name.removeprefix(f"{dataset}/")
        if row["type"] == "snapshot":
            if "@openqrm-" in inner and name not in origins and row["defer_destroy"] != "on":
                leftovers.append(name)
        elif len(inner) <= 63 and re.fullmatch(NAME_PATTERN, inner) and name != dataset:
            size = row["volsize" if row["type"] == "volume" else "refquota"]
            volumes.append(Dataset(inner, row["type"], -(-int(size) // 2**20)))
    free = int(rows[dataset]["available"]) // 2**20 if dataset in rows else None
    return ZfsFacts("zfs" in first.split(), "kernel" in first.split(), free, tuple(volumes), tuple(leftovers))
