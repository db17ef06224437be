"""Export tables of the kernel's NFS server. Source: exports(5)."""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING

from openqrm.plugins.storage.nfs.access import ANYBODY, Access, plain_client

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_WORD = re.compile(r'"[^"]*"|\S+')
_CLIENT = re.compile(r"([^(]*)(?:\(([^)]*)\))?$")


def accesses(files: Mapping[str, list[str]], table: Iterable[str]) -> Iterator[Access]:
    """What it gives to whom: by the lines of files that it reads when it starts, and of its table of now.

    A line that ends in a backslash goes on in the next.
    """
    lines = "\n".join([*chain.from_iterable(files.values()), *table])
    for line in re.sub(r"\\\n", " ", lines).splitlines():
        words = _WORD.findall(line.partition("#")[0])
        path = words[0].strip('"') if words else ""
        if not path.startswith("/"):
            continue
        usual = ",".join(word[1:] for word in words[1:] if word.startswith("-"))
        for word in [word for word in words[1:] if not word.startswith("-")] or [ANYBODY]:
            if match := _CLIENT.match(word):
                options = (match[2] or usual).split(",")
                yield Access(_plain_path(path), plain_client(match[1]), "rw" in options)


def _plain_path(path: str) -> str:
    r"""exports(5) writes a blank as \040."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), path)
