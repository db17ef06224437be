"""What a storage host says about its iSCSI servers."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import astuple

from openqrm.plugin_api.drivers import Grant
from openqrm.plugin_api.script_export import ExportFacts

PREFIX = "iqn.2004-03.org.openqrm"
NOBODY = "255.255.255.255"
"""What our targets of tgt name as address; no machine has it."""
Targets = defaultdict[tuple[str, str], defaultdict[str, set[str]]]
"""Values by kind (acl, account, lun, nexus: a live session), by source (a server, now or restarted) and IQN."""


def parse_iscsi(output: str) -> ExportFacts:
    """The output of `facts`. `has`: the server's name, and `persistent` if tgt-admin reads the files in which our
    targets outlive tgtd. ValueError or KeyError for something else."""
    has: dict[str, str] = {}
    targets: Targets = defaultdict(lambda: defaultdict(set))
    for line in output.splitlines():
        source, rest = line.split(" ", 1)
        if source == "has":
            word, _, has[word] = rest.partition(" ")
        else:
            iqn, kind, value = (rest + " ").split(" ", 2)
            targets[source, iqn][kind].add(value.strip())
    if has["server"] not in ("tgt", "lio", "none"):
        raise ValueError(f"there is no iSCSI server {has['server']}")
    found = {grant for source, iqn in tuple(targets) for grant in _grants(targets, source, iqn)}
    return ExportFacts(has, tuple(sorted(found, key=astuple)))


def _grants(targets: Targets, source: str, iqn: str) -> set[Grant]:
    """Of one target. A session that lives on though its initiator is no longer bound is a grant as well."""
    said, found, ours = targets[source, iqn], set(), re.fullmatch(rf"{PREFIX}:(volume-\d+)", iqn)
    volume = ours[1] if ours else ""
    clients = _clients(said["acl"])
    saved = _clients(targets[f"{source.removesuffix('-saved')}-saved", iqn]["acl"])
    for client in {*clients, *said["nexus"]}:
        generation = -1
        if volume and client in clients and (not saved or client in saved):
            generation = _generation(volume, client, clients[client] or " ".join(said["account"] - {""}))
        for unit in said["lun"]:
            found.add(Grant(volume if generation >= 0 else "", client, generation, unit.partition(" ")[2]))
    return found


def _clients(bound: set[str]) -> dict[str, str]:
    """Who may log in, and as which user where the server knows one for each (LIO)."""
    pairs = (value.partition(" ") for value in bound if value != NOBODY)
    return {client: user for client, _, user in pairs}


def _generation(volume: str, client: str, user: str) -> int:
    """Of the lease that a machine logs in under, by its user's name; -1 when that is none of ours."""
    asked = re.fullmatch(rf"{volume}-g(\d+)", user)
    return int(asked[1]) if asked and re.fullmatch(rf"{PREFIX}:client-[0-9a-f]{{12}}", client) else -1
