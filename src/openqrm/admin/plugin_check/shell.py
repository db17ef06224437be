"""Shell of plug-ins, looked at by shellcheck where it is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from openqrm.admin.plugin_check.files import scripts as all_scripts
from openqrm.admin.plugin_scaffold import own_tests
from openqrm.engine.plugins.catalogue import path_in
from openqrm.plugin_api.scripts import PART, part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openqrm.engine.plugins.catalogue import Catalogue
    from openqrm.plugin_api.plugin import Plugin

PROGRAM = "shellcheck"
_NOT_HERE = "SC2034,SC2154,SC2317,SC2329"
"""Set, used and called by the initramfs that sources a hook, or by what a script is put together with."""


def scripts(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """Hooks of machines, and the scripts of storage hosts as the case files put them together."""
    del catalogue
    if shutil.which(PROGRAM) is None:
        return
    wholes = _together(plugin)
    parts = {name for whole in wholes for name in whole}
    base = path_in(plugin, ".").resolve()
    alone = [(name,) for file in all_scripts(plugin) if (name := str(file.resolve().relative_to(base))) not in parts]
    for whole in [*sorted(wholes), *alone]:
        for found in _complaints("".join(_text(plugin, name) for name in whole)):
            yield f"{' + '.join(whole)}: shellcheck: {found}"


def _text(plugin: Plugin, name: str) -> str:
    return part(name) if name.startswith(PART) else path_in(plugin, name).read_text(encoding="utf-8")


def unchecked() -> Iterator[str]:
    """That nobody looked at the shell."""
    if shutil.which(PROGRAM) is None:
        yield f"its shell was not looked at: {PROGRAM} is not installed"


def _together(plugin: Plugin) -> set[tuple[str, ...]]:
    """What `{"files": [...]}` in case files puts together."""
    found: set[tuple[str, ...]] = set()

    def look(value: Any) -> None:
        if isinstance(value, dict) and set(value) == {"files"}:
            found.add(tuple(value["files"]))
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            look(item)

    for file in own_tests(plugin):
        if file.suffix == ".json":
            look(json.loads(file.read_text(encoding="utf-8")))
    return {whole for whole in found if all(name.startswith(PART) or path_in(plugin, name).is_file() for name in whole)}


def _complaints(text: str) -> list[str]:
    command = [PROGRAM, "-s", "dash", "-S", "warning", "-f", "gcc", "-e", _NOT_HERE, "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return [re.sub(r"^-:", "line ", line) for line in done.stdout.splitlines()]
