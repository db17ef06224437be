"""Shell that runs on storage hosts: a plug-in's own scripts, behind the parts of ours that they use.

The parts are files in `openqrm/plugin_api/shell`; each says in its first lines what it defines and what it needs.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

PART = "shell:"
"""What a name of one of our parts begins with."""


@cache
def script(package: str, *names: str) -> str:
    """Texts one after the other: `NAME` of a plug-in's scripts, `FOLDER/NAME` of the plug-in, `shell:NAME` of ours."""
    return "".join(_text(package, name) for name in names)


def part(name: str) -> str:
    """One of our parts, with or without the prefix. FileNotFoundError."""
    return files(__package__).joinpath("shell", name.removeprefix(PART)).read_text(encoding="utf-8")


def _text(package: str, name: str) -> str:
    if name.startswith(PART):
        return part(name)
    return files(package).joinpath(name if "/" in name else f"scripts/{name}").read_text(encoding="utf-8")
