"""What NFS servers give to whom: export tables of the kernel's server, configuration and answers of nfs-ganesha.

Sources: exports(5), nfs-ganesha's documentation of EXPORT blocks and of its D-Bus method DisplayExport.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ANYBODY = "*"
_NOTE = re.compile(r"# openqrm (grant|lent) (volume-\d+) (\S+) (\d+) (/\S*)$")
_WORD = re.compile(r'"[^"]*"|\S+')
_CLIENT = re.compile(r"([^(]*)(?:\(([^)]*)\))?$")
_EXPORT = re.compile(r"\bEXPORT\s*\{((?:[^{}]|\{[^{}]*\})*)\}", re.IGNORECASE)
_BLOCK = re.compile(r"\b(\w+)\s*\{([^{}]*)\}")
_SETTING = re.compile(r"\b(\w+)\s*=\s*([^;]*);")
_SHOWN = re.compile(r"\"[^\"]*\"|'[^']*'|\b0x[0-9a-f]+\b|\b\d+\b")
_MAY_WRITE = 0x40
"""EXPORT_OPTION_WRITE_ACCESS in nfs-ganesha's export_mgr.h."""
_OPTIONS_AT, _NUMBERS = 7, 9
"""Behind a client's name in what DisplayExport says: which number is its options, and how many there are."""


@dataclass(frozen=True)
class Given:
    """`path` is handed out to `client`. `volume` is empty and `generation` -1 where no note of ours says why."""

    path: str
    client: str
    writes: bool
    volume: str = ""
    generation: int = -1


def given(output: str) -> tuple[Given, ...]:
    """Everything in the output of `export-facts`, each once: what our notes explain with their words."""
    notes: defaultdict[tuple[str, str, bool], list[tuple[str, int]]] = defaultdict(list)
    tables: list[str] = []
    configurations: defaultdict[str, list[str]] = defaultdict(list)
    found: list[tuple[str, str, bool]] = []
    for line in output.splitlines():
        kind, _, rest = line.partition(" ")
        where, _, text = rest.partition(" ")
        if kind == "file" and (note := _NOTE.match(text)):
            notes[note[5], note[3], note[1] == "grant"].append((note[2], int(note[4])))
        elif kind == "file" and where.endswith(".conf"):
            configurations[where].append(text)
        elif (kind, where) == ("live", "ganesha"):
            found += _shown(text)
        elif kind == "file" or (kind, where) == ("live", "kernel"):
            tables.append(text)
    found += [one for text in configurations.values() for one in _configured("\n".join(text))]
    found += _exported(tables)
    return tuple(Given(*one, *why) for one in dict.fromkeys(found) for why in notes.get(one, [("", -1)]))


def _exported(lines: Iterable[str]) -> Iterator[tuple[str, str, bool]]:
    """Lines of exports(5); one that ends in a backslash goes on in the next."""
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        words = _WORD.findall(line.partition("#")[0])
        path = words[0].strip('"') if words else ""
        if not path.startswith("/"):
            continue
        usual = ",".join(word[1:] for word in words[1:] if word.startswith("-"))
        for word in [word for word in words[1:] if not word.startswith("-")] or [ANYBODY]:
            if match := _CLIENT.match(word):
                options = (match[2] or usual).split(",")
                yield _plain_path(path), _plain_client(match[1]), "rw" in options


def _plain_path(path: str) -> str:
    r"""exports(5) writes a blank as \040."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), path)


def _plain_client(name: str) -> str:
    """One address without its network's length."""
    return re.sub(r"/32$" if "." in name else r"/128$", "", name.strip()) or ANYBODY


def _configured(text: str) -> Iterator[tuple[str, str, bool]]:
    """EXPORT blocks of nfs-ganesha's configuration."""
    for block in _EXPORT.findall(re.sub(r"#.*", "", text)):
        settings = _settings(_BLOCK.sub("", block))
        path, access = settings.get("path", ""), settings.get("access_type", "none")
        if access.lower() != "none":
            yield path, ANYBODY, _writes(access)
        for name, inner in _BLOCK.findall(block):
            if name.lower() != "client":
                continue
            own = _settings(inner)
            allowed = own.get("access_type", access)
            if allowed.lower() != "none":
                for client in own.get("clients", "").split(","):
                    yield path, _plain_client(client.strip(" '\"@")), _writes(allowed)


def _settings(text: str) -> dict[str, str]:
    return {name.lower(): value.strip(" \t\n'\"") for name, value in _SETTING.findall(text)}


def _writes(access: str) -> bool:
    return access.upper() in ("RW", "MDONLY")


def _shown(text: str) -> Iterator[tuple[str, str, bool]]:
    """One answer of DisplayExport, by whichever client of D-Bus: id, path, pseudo path, tag, clients."""
    words = _SHOWN.findall(text)
    strings = [number for number, word in enumerate(words) if word[0] in "\"'"]
    if len(strings) < 3 or words[0] == "0":  # 0 is the pseudo file system that leads to the others
        return
    path = words[strings[0]].strip("\"'")
    for place in strings[3:]:
        numbers = words[place + 1 : place + 1 + _NUMBERS]
        name = words[place].strip("\"'")
        client = ANYBODY if name == "<unknown>" else _plain_client(name)
        yield path, client, bool(int(numbers[_OPTIONS_AT]) & _MAY_WRITE)
    if len(strings) == 3:
        yield path, ANYBODY, True
