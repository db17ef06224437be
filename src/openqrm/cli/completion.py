"""Completion for bash: the script, and the words that fit, from the kept schema alone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from openqrm.cli import options, schema
from openqrm.cli.settings import load

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    """What may stand in the place of the last word. No request is made: it has to be there at once."""
    kept = schema.kept(os.environ.get("OPENQRM_URL") or load().url)
    known = kept[0] if kept else schema.Schema({}, [])
    place, started = len(given), given[-1] if given else ""
    if place <= 1:
        found = sorted({*known.kinds(), *own})
    elif place == 2:
        found = sorted({*known.verbs(given[0]), *(("list", "show") if given[0] in known.entities else ())})
    else:
        found = _options(known, given[0], given[1])
    return [word for word in found if word.startswith(started)]


def _options(known: schema.Schema, kind: str, verb: str) -> list[str]:
    operation = known.verbs(kind).get(verb)
    if operation is not None:
        return options.spellings(options.operation_parser(operation))
    if kind in known.entities and verb == "list":
        return options.spellings(options.list_parser(kind, known.entities[kind]))
    return ["--json"] if verb == "show" else []
