"""What a storage host says about its NFS server."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from openqrm.plugin_api.facts import Fact
from openqrm.plugins.storage.nfs.tables import Given, given

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openqrm.plugin_api.drivers import StorageContext
    from openqrm.plugins.storage.nfs.plugin import NfsSettings

Server = Literal["ganesha", "kernel", "none"]
_SERVERS: dict[str, Server] = {"ganesha": "ganesha", "kernel": "kernel", "none": "none"}


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
