"""What a storage host says about its iSCSI servers."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal, cast

from openqrm.plugin_api.drivers import Grant
from openqrm.plugin_api.facts import Fact

if TYPE_CHECKING:
    from openqrm.plugin_api.drivers import StorageContext

Server = Literal["tgt", "lio", "none"]
PREFIX = "iqn.2004-03.org.openqrm"
COMMON = ("servers", "lio", "lio-end")
"""What every script begins with: functions for tgt, and for LIO a program in Python in a function of the shell."""
NOBODY = "255.255.255.255"
"""What our targets of tgt name as address; no machine has it."""


@dataclass
class Target:
    """What one server gives under one name, now or after its restart."""

    clients: dict[str, str] = field(default_factory=dict)
    """Who may log in, and as which user where the server knows one for each (LIO)."""
    sessions: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class IscsiFacts:
    """`persistent`: tgt-admin reads the files in which our targets outlive tgtd. Targets by source and IQN."""

    server: Server
    persistent: bool
    targets: dict[tuple[str, str], Target]


@cache
def script(name: str) -> str:
    """A shell script of this plug-in, behind what all of them need."""
    folder = files(__package__).joinpath("scripts")
    return "".join(folder.joinpath(part).read_text(encoding="utf-8") for part in (*COMMON, name))


def iscsi_fact(context: StorageContext) -> Fact[IscsiFacts]:
    """Server software, and all that it gives."""
    return Fact(name="iscsi-export", host=context.host, argv=("sh", "-c", script("show"), "show"), parse=parse_iscsi)


def parse_iscsi(output: str) -> IscsiFacts:
    """The output of `show`. ValueError or KeyError for something else."""
    single: dict[str, str] = {}
    targets: dict[tuple[str, str], Target] = defaultdict(Target)
    for line in output.splitlines():
        word, rest = line.split(" ", 1)
        if word in ("server", "persistent"):
            single[word] = rest
            continue
        iqn, kind, value = (rest + " ").split(" ", 2)
        target, value = targets[word, iqn], value.strip()
        match kind:
            case "acl" if value != NOBODY:
                client, _, user = value.partition(" ")
                target.clients[client] = user
            case "nexus":
                target.sessions.add(value)
            case "account" if value:
                target.accounts.add(value)
            case "lun":
                target.paths.add(value.partition(" ")[2])
    if single["server"] not in ("tgt", "lio", "none"):
        raise ValueError(f"there is no iSCSI server {single['server']}")
    return IscsiFacts(cast("Server", single["server"]), single.get("persistent") == "yes", dict(targets))


def grants_of(facts: IscsiFacts, place: str) -> list[Grant]:
    """Ours, and whatever else is given of what lies in the pool at `place`. A session that lives on though its
    initiator is no longer bound is a grant as well."""
    found: set[Grant] = set()
    for (source, iqn), target in facts.targets.items():
        volume = iqn.removeprefix(f"{PREFIX}:") if re.fullmatch(rf"{PREFIX}:volume-\d+", iqn) else ""
        saved = facts.targets.get((f"{source.removesuffix('-saved')}-saved", iqn), Target()).clients
        for path in target.paths:
            if not volume and not within(path, place):
                continue
            for client in {*target.clients, *target.sessions}:
                known = volume and client in target.clients and (not saved or client in saved)
                generation = _generation(target, volume, client) if known else -1
                found.add(Grant(volume if generation >= 0 else "", client, generation, path))
    return sorted(found, key=lambda each: (each.volume, each.location, each.client, each.generation))


def _generation(target: Target, volume: str, client: str) -> int:
    """Of the lease that a machine logs in under, by its user's name; -1 when that is none of ours."""
    user = target.clients[client] or " ".join(target.accounts)
    asked = re.fullmatch(rf"{volume}-g(\d+)", user)
    return int(asked[1]) if asked and re.fullmatch(rf"{PREFIX}:client-[0-9a-f]{{12}}", client) else -1


def within(path: str, place: str) -> bool:
    """Whether a path on the host lies in a pool: a directory, a volume group or a dataset."""
    group = place.partition("/")[0]
    mapped = "/dev/mapper/" + group.replace("-", "--") + "-"
    below = [place] if place.startswith("/") else [f"/dev/{group}", f"/dev/zvol/{place}", f"/dev/zvol/{group}"]
    return path.startswith((mapped, *(f"{each}/" for each in below)))
