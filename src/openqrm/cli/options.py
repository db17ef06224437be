"""The command line of one verb, made from the schema; and the arguments it stands for."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from openqrm.cli.failures import USAGE, CliError

if TYPE_CHECKING:
    from collections.abc import Sequence

_PREFIX = "argument:"


class _Help(argparse.HelpFormatter):
    """Keeps names in one piece: a reader copies them."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        import textwrap  # noqa: PLC0415  # a fast start: only help needs it

        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """Reports wrong usage as CliError, so that `--json` and exit codes hold for it too."""

    def __init__(self, prog: str, **keywords: Any) -> None:
        super().__init__(prog=prog, formatter_class=_Help, **keywords)

    def error(self, message: str) -> NoReturn:
        """Wrong usage."""
        raise CliError(message, USAGE, remedy=f"{self.prog} --help")


def positive(text: str) -> int:
    """A number of items, at least 1; argparse reports anything else."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return number


def operation_parser(operation: dict[str, Any]) -> Parser:
    """The parser of an operation."""
    parser = Parser(
        prog=f"openqrm {operation['kind']} {operation['verb']}", description=operation["summary"], allow_abbrev=False
    )
    if operation["target"]:
        word = operation["target"].upper()
        if operation.get("reports"):
            parser.add_argument(
                "target", metavar=word, type=_not_empty, nargs="?", help="id or name; left out: all there are"
            )
        else:
            parser.add_argument("target", metavar=word, type=_not_empty, help="id or name")
    for option in operation["arguments"]:
        _add(parser, option)
    for whole in _wholes(operation["arguments"]):
        parser.add_argument(f"--{whole.replace('_', '-')}", dest=f"whole:{whole}", help=argparse.SUPPRESS)
    common = parser.add_argument_group("for every command")
    common.add_argument("--json", action="store_true", help="print the server's answer as JSON")
    common.add_argument("--dry-run", action="store_true", help="only show what would be done")
    common.add_argument("--key", metavar="KEY", help="idempotency key: the same call under it is done once")
    if operation["destroys"]:
        common.add_argument("--yes", "-y", action="store_true", help="do not ask")
    else:
        common.add_argument("--yes", "-y", action="store_true", help=argparse.SUPPRESS)
    if operation["queued"]:
        common.add_argument("--wait", action="store_true", default=True, help="follow the operation (default)")
        common.add_argument("--no-wait", dest="wait", action="store_false", help="return when it is queued")
    if operation["waits"]:
        common.add_argument("--queue", action="store_true", help="wait for a conflict to go away instead of failing")
    return parser


def list_parser(kind: str, entity: dict[str, Any]) -> Parser:
    """The parser of `openqrm ENTITY list`."""
    parser = Parser(prog=f"openqrm {kind} list", description=f"List {entity['plural']}.", allow_abbrev=False)
    for name in entity["filters"]:
        metavar = "|".join(entity.get("choices", {}).get(name, ())) or "VALUE"
        parser.add_argument(
            f"--{name.replace('_', '-')}", dest=f"{_PREFIX}{name}", metavar=metavar, help=entity["titles"].get(name)
        )
    parser.add_argument(
        "--where", action="append", default=[], metavar="FIELD__OPERATOR=VALUE", help="lt le gt ge ne in"
    )
    parser.add_argument("-q", "--search", help="words to search for")
    sort = entity.get("sort", "id")
    parser.add_argument("--sort", help=f"a field; --sort=-FIELD: descending (default: {sort})")
    parser.add_argument("--limit", type=positive, help="at most so many (default: 100)")
    parser.add_argument("--all", action="store_true", help="all pages")
    parser.add_argument("--json", action="store_true", help="print the server's answer as JSON")
    parser.add_argument("--yes", "-y", action="store_true", help=argparse.SUPPRESS)
    return parser


def _not_empty(text: str) -> str:
    """A variable of a script that is not set is no name."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty: give an id or a name")
    return text


def show_parser(kind: str) -> Parser:
    """The parser of `openqrm ENTITY show`."""
    parser = Parser(prog=f"openqrm {kind} show", description=f"Show one {kind}.", allow_abbrev=False)
    parser.add_argument("target", metavar=kind.upper(), type=_not_empty, help="id or name")
    parser.add_argument("--json", action="store_true", help="print the server's answer as JSON")
    parser.add_argument("--yes", "-y", action="store_true", help=argparse.SUPPRESS)
    return parser


def conditions(given: argparse.Namespace) -> dict[str, str]:
    """The query parameters of a list."""
    found = {name[len(_PREFIX) :]: value for name, value in vars(given).items() if name.startswith(_PREFIX) and value}
    for text in given.where:
        name, equals, value = text.partition("=")
        if not equals:
            raise CliError(f"--where {text}: is written FIELD__OPERATOR=VALUE", USAGE)
        found[name] = value
    if given.search:
        found["q"] = given.search
    if given.sort:
        found["sort"] = given.sort
    return found


def arguments(operation: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    """The arguments of the operation that were given; CliError naming the option for a wrong one."""
    found: dict[str, Any] = {}
    for whole in _wholes(operation["arguments"]):
        text = getattr(given, f"whole:{whole}")
        if text is not None:
            found[whole] = _json(f"--{whole}", text)
    for option in operation["arguments"]:
        value = getattr(given, _destination(option))
        if value is None or value == []:
            continue
        place = found
        for name in option["path"][:-1]:
            inner = place.setdefault(name, {})
            if not isinstance(inner, dict):
                raise CliError(f"--{option['option']}: {name} was already given as a whole", USAGE)
            place = inner
        place[option["path"][-1]] = _value(option, value)
    return found


def spellings(parser: argparse.ArgumentParser) -> list[str]:
    """The long options of a parser, for completion."""
    actions = parser._actions  # noqa: SLF001  # argparse has no public list of them
    return sorted({text for action in actions for text in action.option_strings if text.startswith("--")})


def _wholes(options: Sequence[dict[str, Any]]) -> list[str]:
    """Arguments with options for their fields; they may be given whole too, as JSON."""
    return list(dict.fromkeys(option["path"][0] for option in options if len(option["path"]) > 1))


def _destination(option: dict[str, Any]) -> str:
    return _PREFIX + ".".join(option["path"])


def _add(parser: argparse.ArgumentParser, option: dict[str, Any]) -> None:
    spellings = [f"--{option['option']}"]
    full = "--" + "-".join(option["path"]).replace("_", "-")
    if full not in spellings:
        spellings.append(full)
    if option["short"]:
        spellings.insert(0, f"-{option['short']}")
    text = option["title"] + (f": {option['help']}" if option["help"] else "")
    if option.get("known"):
        text += f"; installed: {', '.join(option['known'])}"
    if option["secret"]:
        text += " (-: read from standard input)"
    wanted = option["required"] and not option["secret"]
    keywords: dict[str, Any] = {"dest": _destination(option), "help": text.replace("%", "%%"), "required": wanted}
    if option["type"] == "boolean" and not option["many"]:
        parser.add_argument(*spellings, action=argparse.BooleanOptionalAction, default=None, **keywords)
        return
    if option["choices"]:
        keywords["metavar"] = "|".join(str(choice) for choice in option["choices"])
    elif option["type"] == "object":
        keywords["metavar"] = "NAME=VALUE"
    else:
        keywords["metavar"] = (option["ref"] or option["path"][-1]).upper()
    if option["many"] or option["type"] == "object":
        keywords |= {"action": "append", "default": None}
    parser.add_argument(*spellings, **keywords)


def _value(option: dict[str, Any], value: Any) -> Any:
    if option["type"] == "object":
        return _object(option, value)
    if option["many"]:
        return [] if value == ["[]"] else [_single(option, item) for item in value]
    return _single(option, value)


def _single(option: dict[str, Any], value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if option["secret"] and value == "-":
        return sys.stdin.readline().rstrip("\r\n")
    if value == "null" and option["type"] != "string":
        return None
    if option["ref"]:
        return int(value) if value.lstrip("-").isdigit() else value
    if option["type"] in ("integer", "number"):
        try:
            return int(value) if option["type"] == "integer" else float(value)
        except ValueError as error:
            raise CliError(f"--{option['option']}: {value} is not a number", USAGE) from error
    return value


def _object(option: dict[str, Any], items: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` pairs, where a value that is JSON counts as that; or one whole JSON object."""
    if len(items) == 1 and items[0].lstrip().startswith("{"):
        found = _json(f"--{option['option']}", items[0])
        return dict(found)
    pairs: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals:
            raise CliError(f"--{option['option']} {item}: is written NAME=VALUE", USAGE)
        try:
            pairs[name] = json.loads(text)
        except ValueError:
            pairs[name] = text
    return pairs


def _json(option: str, text: str) -> Any:
    if text == "null":
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise CliError(f"{option}: {text[:80]} is not JSON", USAGE) from error
    if not isinstance(found, dict):
        raise CliError(f"{option}: {text[:80]} is not a JSON object", USAGE)
    return found
