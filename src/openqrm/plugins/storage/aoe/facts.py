"""What a storage host says about its AoE exporters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from openqrm.plugin_api.drivers import Grant, Placed
from openqrm.plugin_api.facts import Fact

if TYPE_CHECKING:
    from openqrm.plugin_api.drivers import StorageContext
    from openqrm.plugins.storage.aoe.plugin import AoeSettings


@dataclass(frozen=True)
class ExportFacts:
    """The host's exporters. `interface` is empty when the host has none of that name or address."""

    vblade: bool
    interface: str
    grants: tuple[Grant, ...]


@cache
def script(*names: str) -> str:
    """Shell scripts of this plug-in, one after the other."""
    folder = files(__package__).joinpath("scripts")
    return "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def export_fact(context: StorageContext, settings: AoeSettings) -> Fact[ExportFacts]:
    """Whether there is a vblade, the network interface, and what is exported of the storage's pool."""
    pool = context.pool
    place = pool.place if isinstance(pool, Placed) else ""
    return Fact(
        name="aoe-export",
        host=context.host,
        argv=("sh", "-c", script("exports", "export-facts"), "export-facts", settings.interface, context.address),
        parse=lambda output: parse_export(output, place),
    )


def parse_export(output: str, place: str) -> ExportFacts:
    """The output of `export-facts`. What others export from elsewhere than `place` is no matter of this storage.

    Volumes of a volume group or a dataset are devices below its own name.
    """
    inside = place.strip("/") if place.startswith("/") else place.partition("/")[0]
    grants: list[Grant] = []
    single: dict[str, str] = {}
    for line in output.splitlines():
        word, *values = line.split(" ")
        if word in ("grant", "other"):
            volume, client, generation, *rest = values if word == "grant" else ("", values[0], "-1", *values[1:])
            location = " ".join(rest)
            if not place or f"/{inside}/" in location:
                grants.append(Grant(volume, client, int(generation), location))
        else:
            single[word] = values[0]
    return ExportFacts(single["vblade"] == "yes", single.get("interface", ""), tuple(grants))
