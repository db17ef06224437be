"""`openqrm reference`: the reference documentation, written from the declarations.

`openqrm reference write` makes docs/reference; `openqrm reference check` says what is stale and ends with 1.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openqrm.admin.reference_plugins import plugins_page
from openqrm.api.compact import compact
from openqrm.api.problems import MediaTypeError, TooLargeError, TooManyError
from openqrm.api.projection import collections, endpoint
from openqrm.cli.failures import EXIT_CODES
from openqrm.cli.main import OWN, admin_commands
from openqrm.domain import errors
from openqrm.domain.model import attributes
from openqrm.domain.user import UserRole
from openqrm.engine.plugins.catalogue import discover
from openqrm.operations.registry import Registry
from openqrm.operations.versions import ChangedError
from openqrm.plugin_api.operation import needs
from openqrm.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from openqrm.domain.model import Attr
    from openqrm.domain.states import StateTable
    from openqrm.plugin_api.operation import Operation

HEAD = "<!-- Written by `openqrm reference write` from the declarations; do not edit. -->\n\n"
DIRECTORY = Path("docs/reference")


def pages(registry: Registry) -> dict[str, str]:
    """All pages by file name."""
    made: dict[str, Callable[[Registry], str]] = {
        "operations.md": operations_page,
        "entities.md": entities_page,
        "errors.md": errors_page,
        "cli.md": cli_page,
        "settings.md": settings_page,
        "states.md": states_page,
        "plugins.md": _plugins_page,
    }
    return {name: HEAD + page(registry) for name, page in made.items()}


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(_cell(value) for value in line) + " |\n" for line in lines) + "\n"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _plugins_page(registry: Registry) -> str:
    """Every installed plug-in."""
    del registry
    return plugins_page(discover(), table)


def operations_page(registry: Registry) -> str:
    """Every operation: what it does, on what, with which arguments, for whom."""
    text = "# Operations\n\nThe only way anything changes: the same over REST, on the command line and in plans.\n\n"
    described = {each["name"]: each for each in compact(registry)["operations"]}
    for operation in sorted(registry.offered(), key=lambda each: each.name):
        text += f"## {operation.name}\n\n{operation.summary.rstrip('.')}.\n\n" + _facts(registry, operation)
        options = described[operation.name]["arguments"]
        if options:
            rows = [
                (
                    f"`{'.'.join(option['path'])}`",
                    _type(option),
                    "yes" if option["required"] else "",
                    ": ".join(part for part in (option["title"], option["help"]) if part),
                )
                for option in options
            ]
            text += table(("argument", "type", "required", "meaning"), rows)
    return text


def _facts(registry: Registry, operation: Operation) -> str:
    place = endpoint(registry, operation)
    target = _target(operation.target.entity.name if operation.target else "", left_out=operation.reports)
    lines = [
        f"`{place.method} {place.path}`",
        f"`openqrm {operation.kind} {operation.verb}{target}`",
        _needed(operation),
    ]
    for name, states in operation.allowed.items():
        lines.append(f"possible while {name} is {' or '.join(sorted(str(state) for state in states))}")
    if operation.phases:
        lines.append("queued: answers 202 with the operation to follow")
    if operation.forward_only:
        lines.append("only goes forward: it is never undone")
    if operation.waits:
        lines.append("may wait for a conflict to go away (`wait=true`, `--queue`)")
    if operation.destroys:
        when = [f"`{name}` is {str(value).lower()}" for name, value in operation.destroys_when.items()]
        given = [f"`{name}`" for name in operation.destroys_given]
        when += [f"{' or '.join(given)} is given (not null, empty or -1)"] if given else []
        lines.append(f"destroys{' when ' if when else ''}{' and '.join(when)}: the command line asks first")
    if operation.name in registry.owners:
        lines.append(f"comes with plug-in {registry.owners[operation.name]}")
    return "".join(f"- {line}\n" for line in lines) + "\n"


def _target(name: str | None, *, left_out: bool) -> str:
    """What a verb is about, as it is typed; in brackets where it may be left out, which means all there are."""
    if not name:
        return ""
    return f" [{name.upper()}]" if left_out else f" {name.upper()}"


def _needed(operation: Operation) -> str:
    for role in (UserRole.VIEWER, UserRole.OPERATOR, UserRole.ADMIN):
        if operation.permission.__code__ is needs(role).__code__:
            cells = operation.permission.__closure__ or ()
            needed = next(str(cell.cell_contents) for cell in cells)
            return "for admins" if needed == "admin" else f"for {needed}s and above"
    return inspect.getdoc(operation.permission) or "for some"


def _type(option: dict[str, Any]) -> str:
    kind = " or ".join(f"`{choice}`" for choice in option["choices"]) or option["type"]
    if option["ref"]:
        kind = f"id or name of a {option['ref']}"
    return f"list of {kind}" if option["many"] else kind


def entities_page(registry: Registry) -> str:
    """Every entity and its fields."""
    text = "# Entities\n\nFields marked *derived* are set by the controller. Secret fields never leave it.\n\n"
    for record in sorted(collections(registry), key=lambda each: each.entity.name):
        entity = record.entity
        text += f"## {entity.title}\n\n{entity.summary}. `GET /v1/{entity.plural}`, `openqrm {entity.name} list`"
        text += ", the newest first.\n\n" if entity.newest_first else ".\n\n"
        attrs = {name: attr for name, attr in attributes(record).items() if not attr.internal}
        rows = [(f"`{name}`", attr.title, _traits(attr), attr.help) for name, attr in attrs.items()]
        text += table(("field", "title", "traits", "meaning"), rows)
    return text


def _traits(attr: Attr) -> str:
    named = ("unique", "filter", "search", "secret", "immutable", "derived")
    found = [name for name in named if getattr(attr, name)]
    found += [f"refers to {attr.ref}"] if attr.ref else []
    return ", ".join([*found, *([attr.unit] if attr.unit else [])])


def errors_page(registry: Registry) -> str:
    """Every error class with its code and status."""
    del registry
    classes: list[type[errors.OpenqrmError]] = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.OpenqrmError) and kind is not errors.OpenqrmError
    ]
    classes += (ChangedError, MediaTypeError, TooLargeError, TooManyError)
    classes.sort(key=lambda each: (each.status, each.code))
    rows = [(f"`{kind.code}`", kind.status, (kind.__doc__ or "").strip().splitlines()[0]) for kind in classes]
    return (
        "# Errors\n\nOver REST: `application/problem+json` with `code`, `detail`, and where they help `field`, "
        "`remedy`, `errors` (all fields at fault) and `output` (of a failed command). A 500 is a bug.\n\n"
        + table(("code", "status", "meaning"), rows)
    )


def cli_page(registry: Registry) -> str:
    """The command line: commands, exit codes, settings."""
    text = "# Command line\n\n`openqrm ENTITY VERB [TARGET] [--option VALUE …]`; the verbs come from the server.\n\n"
    text += "## Exit codes\n\n" + table(("code", "meaning"), list(EXIT_CODES.items()))
    text += _CLI_TEXT
    text += "## Commands\n\n" + table(("command", "does"), [(f"`openqrm {name}`", what) for name, what in OWN.items()])
    rows = [(f"`openqrm {name}`", what) for name, what in admin_commands()]
    text += "## Commands on this machine\n\n" + table(("command", "does"), rows)
    text += "## Verbs\n\nEvery entity has `list` and `show` too.\n\n"
    for each in sorted(compact(registry)["operations"], key=lambda one: one["name"]):
        target = _target(each["target"], left_out=each["reports"])
        options = " ".join(_spelled(option) for option in each["arguments"])
        text += f"- `openqrm {each['kind']} {each['verb']}{target}{' ' + options if options else ''}`\n"
    return text + "\n"


_CLI_TEXT = """## For programs

`--json` prints the server's answer as one JSON document on standard output: a record, `{"items": …, "next": …,
"total": …}` for lists, the operation as it ended for queued ones, `{"record": …, "steps": …}` for `--dry-run`, the
operation with its `steps` for `operation show`. Errors are one JSON object on standard error with `code`, `detail`,
`field` and `remedy`.

Queued operations are followed to their end (`--wait`, the default); `--no-wait` returns the queued one. `--queue` lets
an operation wait for a conflict to go away instead of being refused. `--key KEY` makes a call idempotent. What destroys
something asks on a terminal, and wants `--yes` elsewhere. A secret given as `-` is read from standard input.

`--where FIELD__OPERATOR=VALUE` filters lists (`ne lt le gt ge in null`).

## Which server

`OPENQRM_URL` (`https://HOST:PORT`, `http://…`, `unix:///PATH` with TLS inside, `http+unix:///PATH` without),
`OPENQRM_TOKEN`, `OPENQRM_CA`; else `~/.config/openqrm/cli.json`, which `openqrm login` writes with mode 0600. The verbs
are kept in `~/.cache/openqrm` and asked for anew by entity tag.

"""


def _spelled(option: dict[str, Any]) -> str:
    short = f"-{option['short']}, " if option["short"] else ""
    word = (option["ref"] or option["path"][-1]).upper()
    text = f"{short}--{option['option']}" + ("" if option["type"] == "boolean" else f" {word}")
    return text if option["required"] else f"[{text}]"


def settings_page(registry: Registry) -> str:
    """The installation's settings."""
    del registry
    rows = []
    documented = _docstrings(Settings)
    for name, info in Settings.model_fields.items():
        default = "" if info.default is None else f"`{info.default}`"
        kind = getattr(info.annotation, "__name__", str(info.annotation)).replace("typing.", "")
        rows.append((f"`{name}`", f"`OPENQRM_{name.upper()}`", kind, default, documented.get(name, "")))
    return (
        "# Settings\n\nIn `/etc/openqrm/openqrm.toml` (or the file that `OPENQRM_CONFIG` names); variables of the "
        "environment win over the file.\n\n" + table(("setting", "variable", "type", "default", "meaning"), rows)
    )


def _docstrings(model: type[Any]) -> dict[str, str]:
    """The strings that stand below the fields of a class."""
    import ast  # noqa: PLC0415  # only here

    body = ast.parse(inspect.getsource(model)).body[0]
    assert isinstance(body, ast.ClassDef)  # noqa: S101  # the source of a class
    found: dict[str, str] = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            found[field.target.id] = str(below.value.value)
    return found


def states_page(registry: Registry) -> str:
    """Every state table with its diagram, reasons and deadlines."""
    text = "# States\n\nEach field answers one question; only what a table lists may follow.\n\n"
    for record in registry.entities.values():
        for field, states in record.entity.states.items():
            text += f"## {states.name}\n\n`{record.entity.name}.{field}`\n\n" + diagram(states) + _rows(states)
    return text


def diagram(states: StateTable) -> str:
    """The table as a Mermaid state diagram; rows from any state start at `any`."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {states.initial}"]
    if any(row.source == "*" for row in states.rows):
        lines.append("    any: any state")
    lines += [f"    {'any' if row.source == '*' else row.source} --> {row.target}: {row.event}" for row in states.rows]
    lines += [
        f"    note right of {each.state}: at most {each.seconds} s, then {each.event}" for each in states.deadlines
    ]
    return "\n".join([*lines, "```"]) + "\n\n"


def _rows(states: StateTable) -> str:
    rows = [(row.source, row.event, row.target, row.reason) for row in states.rows]
    text = table(("from", "event", "to", "why"), rows)
    if states.deadlines:
        limits = [(each.state, f"{each.seconds} s", each.event, each.owner, each.reason) for each in states.deadlines]
        text += table(("state", "at most", "then", "owner", "why"), limits)
    if states.owners:
        owned = [(each.state, each.owner, each.exit) for each in states.owners]
        text += table(("state", "lasts as long as this operation owns it", "way out"), owned)
    return text


def stale(directory: Path, registry: Registry) -> list[str]:
    """The pages that differ from what the declarations say."""
    found = []
    for name, text in pages(registry).items():
        file = directory / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            found.append(name)
    return found


def installed() -> Registry:
    """The registry of this installation, with the operations of all plug-ins."""
    return Registry.of_installation(discover().plugins)


def main(argv: list[str]) -> int:
    """Run `openqrm reference ARGV`: 0 done or up to date, 1 stale."""
    parser = argparse.ArgumentParser(prog="openqrm reference", description=__doc__)
    parser.add_argument("verb", choices=("write", "check"))
    parser.add_argument("--directory", type=Path, default=DIRECTORY)
    given = parser.parse_args(argv)
    registry = installed()
    if given.verb == "check":
        old = stale(given.directory, registry)
        for name in old:
            print(f"{given.directory / name} is stale: openqrm reference write", file=sys.stderr)
        return 1 if old else 0
    given.directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages(registry).items():
        (given.directory / name).write_text(text, encoding="utf-8")
    print(f"{given.directory} is written")
    return 0
