"""What a storage host says about its volume groups and logical volumes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from openqrm.plugin_api.facts import Fact

if TYPE_CHECKING:
    from openqrm.plugin_api.drivers import StorageContext
    from openqrm.plugins.storage.lvm.plugin import LvmSettings

OURS = "openqrm"
"""Tag of every logical volume that is ours; one that an operator sets it on becomes so."""


@dataclass(frozen=True)
class Group:
    """A volume group."""

    size_mb: int
    free_mb: int


@dataclass(frozen=True)
class LogicalVolume:
    """One of the volume group. `pool` is its thin pool. `full`: per cent of a thin pool's data or metadata that is
    taken, whichever is more, or of a classic snapshot's room; 100 is the end of that snapshot."""

    name: str
    size_mb: int
    pool: str
    origin: str
    full: float
    tags: frozenset[str]

    @property
    def kind(self) -> str:
        """`tree` or `block` if it is ours, and empty if it is not."""
        if OURS not in self.tags:
            return ""
        return "tree" if f"{OURS}.tree" in self.tags else "block"


@dataclass(frozen=True)
class LvmFacts:
    """The host's volume groups by name, and the logical volumes of the storage's."""

    lvm: bool
    thin: bool
    groups: dict[str, Group] = field(default_factory=dict)
    volumes: tuple[LogicalVolume, ...] = ()

    def volume(self, name: str) -> LogicalVolume | None:
        """The logical volume of that name."""
        return next((volume for volume in self.volumes if volume.name == name), None)


@cache
def script(*names: str) -> str:
    """Shell scripts of this plug-in, one after the other."""
    folder = files(__package__).joinpath("scripts")
    return "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def lvm_fact(context: StorageContext, settings: LvmSettings) -> Fact[LvmFacts]:
    """Volume groups with what is free in each, thin pools with how full they are, logical volumes."""
    argv = ("sh", "-c", script("pool-facts"), "pool-facts", settings.volume_group)
    return Fact(name="lvm-pool", host=context.host, argv=argv, parse=parse)


def parse(output: str) -> LvmFacts:
    """The output of `pool-facts`: reports of vgs(8) and lvs(8) as JSON. ValueError or KeyError for something else."""
    first, _, rest = output.partition("\n")
    tools = first.split()
    decoder, documents = json.JSONDecoder(), []
    while rest := rest.lstrip():
        document, end = decoder.raw_decode(rest)
        documents.append(document)
        rest = rest[end:]
    rows: dict[str, list[dict[str, str]]] = {"vg": [], "lv": []}
    for document in documents:
        for report in document["report"]:
            for kind, found in report.items():
                rows.setdefault(kind, []).extend(found)
    groups = {row["vg_name"]: Group(_mb(row["vg_size"]), int(row["vg_free"]) // 2**20) for row in rows["vg"]}
    return LvmFacts("lvm" in tools, "thin" in tools, groups, tuple(_volume(row) for row in rows["lv"]))


def _volume(row: dict[str, Any]) -> LogicalVolume:
    percents = [float(row[name] or 0) for name in ("data_percent", "metadata_percent")]
    tags = frozenset(row["lv_tags"].split(",")) - {""}
    return LogicalVolume(row["lv_name"], _mb(row["lv_size"]), row["pool_lv"], row["origin"], max(percents), tags)


def _mb(size: str) -> int:
    return -(-int(size) // 2**20)
