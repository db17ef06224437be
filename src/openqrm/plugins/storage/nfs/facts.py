"""What a storage host says about its directory pool and its NFS server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from openqrm.domain.model import NAME_PATTERN
from openqrm.plugin_api.facts import Fact
from openqrm.plugins.storage.nfs.tables import Given, given

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openqrm.plugin_api.drivers import StorageContext
    from openqrm.plugins.storage.nfs.plugin import DirSettings, NfsSettings

Server = Literal["ganesha", "kernel", "none"]
_SERVERS: dict[str, Server] = {"ganesha": "ganesha", "kernel": "kernel", "none": "none"}
NO_DIRECTORY = 3
"""Exit status of `pool-facts` when the pool's directory is not there."""


@dataclass(frozen=True)
class PoolFacts:
    """A directory pool. `reflink`: copies share blocks until they are changed. `left`: paths of what is no volume."""

    free_mb: int
    file_system: str
    reflink: bool
    volumes: tuple[str, ...]
    left: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportFacts:
    """The host's NFS server. `persistent`: nfs-ganesha reads our exports when it starts; `bus`: a D-Bus client;
    `expires`: the kernel's can be told to end what a client has under way; `silent`: nfs-ganesha does not answer."""

    server: Server
    running: bool
    persistent: bool
    bus: str
    given: tuple[Given, ...]
    expires: bool = False
    silent: bool = False


@cache
def script(*names: str) -> str:
    """Shell scripts of this plug-in, one after the other."""
    folder = files(__package__).joinpath("scripts")
    return "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def pool_fact(context: StorageContext, settings: DirSettings) -> Fact[PoolFacts | None]:
    """None when the directory is not there, for example because its file system is not mounted."""
    return Fact(
        name="dir-pool",
        host=context.host,
        argv=("sh", "-c", script("pool-facts"), "pool-facts", settings.directory),
        parse=parse_pool,
        absent=(NO_DIRECTORY,),
        missing=None,
    )


def export_fact(context: StorageContext, settings: NfsSettings) -> Fact[ExportFacts]:
    """Server software, whether it runs, and what it gives to whom."""
    directories = (settings.ganesha_exports, settings.kernel_exports)
    return Fact(
        name="nfs-export",
        host=context.host,
        argv=("sh", "-c", script("exports", "export-facts"), "export-facts", *directories),
        parse=parse_export,
    )


def _lines(output: str) -> Iterator[tuple[str, list[str]]]:
    for line in output.splitlines():
        word, *values = line.split()
        yield word, values


def parse_pool(output: str) -> PoolFacts:
    """The output of `pool-facts`; a directory whose name no volume can have is none. ValueError or KeyError."""
    volumes: list[str] = []
    left: list[str] = []
    single: dict[str, str] = {}
    for word, values in _lines(output):
        if word == "volume":
            volumes += [name for name in values if len(name) <= 63 and re.fullmatch(NAME_PATTERN, name)]
        elif word == "left":
            left += values
        else:
            single[word] = values[0]
    return PoolFacts(
        free_mb=int(single["free_mb"]),
        file_system=single["type"],
        reflink=single.get("reflink") == "yes",
        volumes=tuple(volumes),
        left=tuple(left),
    )


def parse_export(output: str) -> ExportFacts:
    """The output of `export-facts`. ValueError or KeyError for something else."""
    single = {word: values[0] for word, values in _lines(output) if word not in ("file", "live")}
    return ExportFacts(
        server=_SERVERS[single["server"]],
        running=single["running"] == "yes",
        persistent=single["persistent"] == "yes",
        bus=single.get("bus", ""),
        given=given(output),
        expires=single.get("expires") == "yes",
        silent=single.get("silent") == "yes",
    )
