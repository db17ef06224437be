"""What the NFS servers of a storage host give to whom: what they serve, and what they will serve after a restart."""

from __future__ import annotations

import re
from collections import defaultdict

from openqrm.plugin_api.drivers import Grant
from openqrm.plugin_api.script_export import ExportFacts, parse
from openqrm.plugins.storage.nfs.access import Access
from openqrm.plugins.storage.nfs.servers.ganesha import tables as ganesha
from openqrm.plugins.storage.nfs.servers.kernel import tables as kernel

_NOTE = re.compile(r"# openqrm (grant|lent) (volume-\d+) (\S+) (\d+) (/\S*)$")
_BY_HAND = ("", -1)


def parse_export(output: str) -> ExportFacts:
    """The output of `export facts`. ValueError for anything else.

    `has` is whether servers are "running" or "installed" (`ganesha`, `kernel`), that nfs-ganesha reads our exports when
    it starts (`persistent`), a D-Bus client (`bus`), that nfs-ganesha runs and does not answer (`silent`), and that the
    kernel's server can be told to end what a client has under way (`expires`).
    """
    of_host: list[str] = []
    of_grants: list[str] = []
    for line in output.splitlines():
        (of_grants if line.startswith(("file ", "live ")) else of_host).append(line)
    return ExportFacts(parse("\n".join(of_host)).has, _grants(of_grants))


def _grants(lines: list[str]) -> tuple[Grant, ...]:
    """Every access, each once: what our notes explain with their words."""
    notes: defaultdict[Access, list[tuple[str, int]]] = defaultdict(list)
    files: defaultdict[str, list[str]] = defaultdict(list)
    live: defaultdict[str, list[str]] = defaultdict(list)
    for line in lines:
        kind, _, rest = line.partition(" ")
        where, _, text = rest.partition(" ")
        if kind == "live":
            live[where].append(text)
        elif note := _NOTE.match(text):
            notes[Access(note[5], note[3], note[1] == "grant")].append((note[2], int(note[4])))
        else:
            files[where].append(text)
    found = [
        *ganesha.accesses({where: own for where, own in files.items() if where.endswith(".conf")}, live["ganesha"]),
        *kernel.accesses({where: own for where, own in files.items() if not where.endswith(".conf")}, live["kernel"]),
    ]
    return tuple(
        Grant(volume, one.client, generation, one.path, writes=one.writes)
        for one in dict.fromkeys(found)
        for volume, generation in notes.get(one, [_BY_HAND])
    )
