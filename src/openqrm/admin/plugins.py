"""`openqrm plugin new NAME` writes a plug-in to begin with; `openqrm plugin check` says what is wrong with one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from openqrm.admin import plugin_scaffold
from openqrm.admin.plugin_check import faults, warnings
from openqrm.admin.plugin_check.files import MOST_LINES, counted
from openqrm.domain.errors import OpenqrmError
from openqrm.operations.core_plugins import installed
from openqrm.plugin_api.plugin import Family, Plugin


def check(names: list[str]) -> tuple[dict[str, list[str]], dict[str, list[str]], dict[str, str]]:
    """Faults, warnings and sizes of installed plug-ins, all of them when none is named; NotFoundError."""
    catalogue = installed()
    chosen = [catalogue.get(name) for name in names] if names else list(catalogue.plugins)
    found = {plugin.name: faults(plugin, catalogue) for plugin in chosen}
    if not names:
        found |= {broken.name: [broken.reason] for broken in catalogue.broken}
    noted = {plugin.name: warnings(plugin, catalogue) for plugin in chosen}
    return found, noted, {plugin.name: _size(plugin) for plugin in chosen}


def _size(plugin: Plugin) -> str:
    """How large a storage plug-in is, to stand behind `ok`; nothing for others, which may have any size."""
    lines = counted(plugin)
    apart = "".join(f", {folder} {count}" for folder, count in sorted(lines.items()) if folder)
    limit = f"{'each ' if apart else ''}less than {MOST_LINES}"
    return f" ({lines['']} lines of Python and shell{apart}; {limit})" if lines else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="openqrm plugin", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("new", help="write a plug-in to begin with")
    making.add_argument("name")
    making.add_argument("--family", choices=[str(one) for one in Family], help="default: other")
    making.add_argument("--from", dest="source", metavar="OTHER", help="begin with a copy of an installed plug-in")
    making.add_argument("--directory", type=Path, help="of the new package; default: openqrm-NAME below this one")
    making.add_argument("--tree", type=Path, metavar="CHECKOUT", help="make it a part of openQRM's own source")
    checking = verbs.add_parser("check", help="say what is wrong with installed plug-ins")
    checking.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    return parser


def new(arguments: argparse.Namespace) -> list[Path]:
    """Write a plug-in; the files made. ValueError, FileExistsError, and the errors of names and what is installed."""
    name: str = arguments.name
    catalogue = installed()
    source = catalogue.get(arguments.source) if arguments.source else None
    family = source.family if source else Family(arguments.family or Family.OTHER)
    plugin_scaffold.refuse_name(name)
    plugin_scaffold.refuse_taken(name, source or plugin_scaffold.skeleton(family), catalogue)
    if arguments.tree:
        layout = plugin_scaffold.in_tree(name, family, arguments.tree)
    else:
        layout = plugin_scaffold.of_its_own(name, arguments.directory or Path(f"openqrm-{name}"))
    if source:
        return plugin_scaffold.copy(name, source, layout)
    return plugin_scaffold.new(name, family, layout)


def _next(arguments: argparse.Namespace) -> str:
    if arguments.tree:
        return "next: make setup docs check"
    directory = arguments.directory or f"openqrm-{arguments.name}"
    return f"next: pip install -e {directory}; openqrm plugin check {arguments.name}; restart the controller"


def main(argv: list[str]) -> int:
    """Run `openqrm plugin new|check`: 0 fine, 1 faults were found or nothing was written."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        if arguments.verb == "new":
            if arguments.source and arguments.family:
                parser.error("--family comes with --from OTHER")
            for file in new(arguments):
                print(file)
            print(_next(arguments))
            return 0
        found, noted, sizes = check(arguments.names)
    except OpenqrmError as error:
        where = f" ({error.field})" if error.field else ""
        remedy = f"\n  {error.remedy}" if error.remedy else ""
        print(f"openqrm plugin{where}: {error.detail}{remedy}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"openqrm plugin: {error}", file=sys.stderr)
        return 1
    for name, wrong in found.items():
        faulty = f"{len(wrong)} fault{'s' if wrong[1:] else ''}"
        print(f"{name}: {faulty if wrong else f'ok{sizes[name]}'}")
        for line in (*wrong, *(f"warning: {text}" for text in noted.get(name, ()))):
            print(f"  {line}")
    return 1 if any(found.values()) else 0
