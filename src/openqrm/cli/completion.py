"""Completion for bash: the script, and the words that fit."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from openqrm.cli import options, schema
from openqrm.cli.client import Client
from openqrm.cli.failures import CliError
from openqrm.cli.settings import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.cli.settings import Settings

SECONDS = 1.0
SCRIPT = """# bash completion for openqrm: eval "$(openqrm completion bash)"
_openqrm() {
    local IFS=$'\\n'
    COMPREPLY=($(openqrm __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _openqrm openqrm
"""


def main(argv: Sequence[str]) -> int:
    """`openqrm completion [bash]`: print the script."""
    text = 'Print the completion script. In ~/.bashrc: eval "$(openqrm completion bash)"'
    parser = options.Parser(prog="openqrm completion", description=text)
    parser.add_argument("shell", nargs="?", choices=["bash"], default="bash", help="which shell (default: bash)")
    parser.parse_args(argv)
    print(SCRIPT, end="")
    return 0


def words(given: Sequence[str], own: Sequence[str]) -> list[str]:
    """What may stand in the place of the last word: by the kept schema, and names by one short request."""
    settings = load()
    kept = schema.kept(os.environ.get("OPENQRM_URL") or settings.url)
    known = kept[0] if kept else schema.Schema({}, [])
    place, started = len(given), given[-1] if given else ""
    if place <= 1:
        found = sorted({*known.kinds(), *own})
    elif place == 2:
        found = sorted({*known.verbs(given[0]), *(("list", "show") if given[0] in known.entities else ())})
    elif started.startswith("-"):
        found = _options(known, given[0], given[1])
    else:
        kind = _named_by(known, given)
        found = _names(settings, known, kind, started) if kind else []
    return [word for word in found if word.startswith(started)]


def _options(known: schema.Schema, kind: str, verb: str) -> list[str]:
    operation = known.verbs(kind).get(verb)
    if operation is not None:
        return options.spellings(options.operation_parser(operation))
    if kind in known.entities and verb == "list":
        return options.spellings(options.list_parser(kind, known.entities[kind]))
    return ["--json"] if verb == "show" else []


def _named_by(known: schema.Schema, given: Sequence[str]) -> str:
    """The kind of thing that the last word is the name of; empty when it is none."""
    kind, verb, before = given[0], given[1], given[-2]
    operation = known.verbs(kind).get(verb, {"target": kind if verb == "show" else None, "arguments": []})
    if before.startswith("--"):
        option = next((each for each in operation["arguments"] if f"--{each['option']}" == before), None)
        return str(option["ref"] or "") if option else ""
    return str(operation["target"] or "") if len(given) == 3 else ""


def _names(settings: Settings, known: schema.Schema, kind: str, started: str) -> list[str]:
    """Those that there are; none when the server is not there at once: nobody waits for a completion."""
    entity = known.entities.get(kind)
    if entity is None or entity["label"] == "id" or not settings.token:
        return []
    label = entity["label"]
    query = urlencode({f"{label}__ge": started, "sort": label, "limit": "50"} if started else {"limit": "50"})
    try:
        items = Client(settings, SECONDS).request("GET", f"/v1/{entity['plural']}?{query}").data["items"]
    except CliError:
        return []
    names = [str(item[label]) for item in items]
    # What several bear names none of them: operations, and volumes of two storages.
    return sorted(name if names.count(name) == 1 else str(item["id"]) for name, item in zip(names, items, strict=True))
