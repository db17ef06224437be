"""Configuration and answers of nfs-ganesha.

Source: its documentation of EXPORT blocks and of its D-Bus method DisplayExport.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from openqrm.plugins.storage.nfs.access import ANYBODY, Access, plain_client

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_EXPORT = re.compile(r"\bEXPORT\s*\{((?:[^{}]|\{[^{}]*\})*)\}", re.IGNORECASE)
_BLOCK = re.compile(r"\b(\w+)\s*\{([^{}]*)\}")
_SETTING = re.compile(r"\b(\w+)\s*=\s*([^;]*);")
_SHOWN = re.compile(r"\"[^\"]*\"|'[^']*'|\b0x[0-9a-f]+\b|\b\d+\b")
_MAY_WRITE = 0x40
"""EXPORT_OPTION_WRITE_ACCESS in nfs-ganesha's export_mgr.h."""
_OPTIONS_AT, _NUMBERS = 7, 9
"""Behind a client's name in what DisplayExport says: which number is its options, and how many there are."""


def accesses(files: Mapping[str, list[str]], answers: Iterable[str]) -> Iterator[Access]:
    """What it gives to whom: by answers of DisplayExport, and by the lines of files that it reads when it starts."""
    for answer in answers:
        yield from _shown(answer)
    for lines in files.values():
        yield from _configured("\n".join(lines))


def _configured(text: str) -> Iterator[Access]:
    """EXPORT blocks of a configuration file."""
    for block in _EXPORT.findall(re.sub(r"#.*", "", text)):
        settings = _settings(_BLOCK.sub("", block))
        path, access = settings.get("path", ""), settings.get("access_type", "none")
        if access.lower() != "none":
            yield Access(path, ANYBODY, _writes(access))
        for name, inner in _BLOCK.findall(block):
            if name.lower() != "client":
                continue
            own = _settings(inner)
            allowed = own.get("access_type", access)
            if allowed.lower() != "none":
                for client in own.get("clients", "").split(","):
                    yield Access(path, plain_client(client.strip(" '\"@")), _writes(allowed))


def _settings(text: str) -> dict[str, str]:
    return {name.lower(): value.strip(" \t\n'\"") for name, value in _SETTING.findall(text)}


def _writes(access: str) -> bool:
    return access.upper() in ("RW", "MDONLY")


def _shown(text: str) -> Iterator[Access]:
    """One answer of DisplayExport, by whichever client of D-Bus: id, path, pseudo path, tag, clients."""
    words = _SHOWN.findall(text)
    strings = [number for number, word in enumerate(words) if word[0] in "\"'"]
    if len(strings) < 3 or words[0] == "0":  # 0 is the pseudo file system that leads to the others
        return
    path = words[strings[0]].strip("\"'")
    for place in strings[3:]:
        numbers = words[place + 1 : place + 1 + _NUMBERS]
        name = words[place].strip("\"'")
        client = ANYBODY if name == "<unknown>" else plain_client(name)
        yield Access(path, client, bool(int(numbers[_OPTIONS_AT]) & _MAY_WRITE))
    if len(strings) == 3:
        yield Access(path, ANYBODY, True)
