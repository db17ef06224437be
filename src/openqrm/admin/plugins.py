"""`openqrm plugin new NAME` writes a plug-in to begin with; `openqrm plugin check` says what is wrong with one."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from openqrm import __version__
from openqrm.admin.plugin_check import faults
from openqrm.domain.errors import OpenqrmError
from openqrm.domain.model import NAME_PATTERN
from openqrm.operations.core_plugins import installed
from openqrm.plugin_api.plugin import Family

FILES = {
    "pyproject.toml": """\
[build-system]
requires = ["hatchling>=1.25"]
build-backend = "hatchling.build"

[project]
name = "openqrm-{name}"
version = "0.1.0"
description = "{title} for openQRM"
requires-python = ">=3.11"
dependencies = ["openqrm>={version}"]

[project.entry-points."openqrm.plugins"]
{name} = "{package}.plugin:PLUGIN"

[tool.hatch.build.targets.wheel]
packages = ["src/{package}"]
""",
    "src/{package}/__init__.py": '"""{title} for openQRM."""\n',
    "src/{package}/README.md": "# {name}\n\nWhat it does, what it needs, how it is used.\n",
    "src/{package}/plugin.py": '''\
"""Declaration of the `{name}` plug-in. It imports no driver."""

from __future__ import annotations

from typing import Annotated

from openqrm.domain.model import Attr
from openqrm.plugin_api.hooks import HookSet
from openqrm.plugin_api.plugin import Family, Plugin, Requires
from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """What an operator may set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    greeting: Annotated[str, Attr("Greeting", help="said to every new machine")] = "hello"


PLUGIN = Plugin(
    name="{name}",
    family=Family.{family_upper},
    title="{title}",
    summary="One sentence for menus and lists",
    module="{package}",
    hooks=HookSet(resource="{package}.hooks:resource"),
    settings=Settings,
    requires=Requires(plugins=(), commands=()),
)
''',
    "src/{package}/hooks.py": '''\
"""Hooks: pure functions that look and return steps. They act on nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.resource import SERVER_ID
from openqrm.plugin_api.steps import Command, Irreversible, Run

if TYPE_CHECKING:
    from openqrm.domain.resource import Resource
    from openqrm.plugin_api.hooks import HookContext
    from openqrm.plugin_api.steps import Steps


def resource(context: HookContext, moment: str, machine: Resource) -> Steps:
    """Say the greeting, on the server, when a machine is added."""
    if moment != "add":
        return ()
    return (
        Run(
            name="greet",
            title=f"Greet {{machine.name}}",
            host=SERVER_ID,
            do=Command(argv=("echo", context.settings["greeting"], machine.name)),
            undo=Irreversible(reason="what was said was said"),
        ),
    )
''',
    "tests/test_{package}.py": '''\
"""The hook's plan: a resource in, exact steps out."""

from __future__ import annotations

from openqrm.domain.resource import Resource
from openqrm.plugin_api.hooks import HookContext
from openqrm.testing.memory import MemoryDatabase

from {package} import hooks


def test_a_new_machine_is_greeted_and_a_removed_one_is_not() -> None:
    with MemoryDatabase().read() as reader:
        context = HookContext(reader, {{"greeting": "hello"}})
        machine = Resource(name="node1", mac="52:54:00:00:00:01")
        (step,) = hooks.resource(context, "add", machine)
        assert step.kind == "run"
        assert step.do.argv == ("echo", "hello", "node1")
        assert hooks.resource(context, "remove", machine) == ()
''',
}


def new(name: str, family: Family, directory: Path) -> list[Path]:
    """Write the files of a new plug-in below `directory`; ValueError for a wrong name, FileExistsError."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise ValueError(f"{name!r} is no plug-in name: lower case letters, digits and inner dashes")
    words = {
        "name": name,
        "package": f"openqrm_{name.replace('-', '_')}",
        "title": name.replace("-", " ").capitalize(),
        "family_upper": family.name,
        "version": __version__,
    }
    if directory.exists():
        raise FileExistsError(f"{directory} exists")
    made = []
    for path, text in FILES.items():
        file = directory / path.format(**words)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.format(**words), encoding="utf-8")
        made.append(file)
    return made


def check(names: list[str]) -> dict[str, list[str]]:
    """What is wrong with installed plug-ins, all of them when none is named; NotFoundError."""
    catalogue = installed()
    chosen = [catalogue.get(name) for name in names] if names else list(catalogue.plugins)
    found = {plugin.name: faults(plugin, catalogue) for plugin in chosen}
    if not names:
        found |= {broken.name: [broken.reason] for broken in catalogue.broken}
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="openqrm plugin", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("new", help="write a plug-in to begin with")
    making.add_argument("name")
    making.add_argument("--family", choices=[str(one) for one in Family], default=str(Family.OTHER))
    making.add_argument("--directory", type=Path, help="default: openqrm-NAME below the current one")
    checking = verbs.add_parser("check", help="say what is wrong with installed plug-ins")
    checking.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    return parser


def main(argv: list[str]) -> int:
    """Run `openqrm plugin new|check`: 0 fine, 1 faults were found or nothing was written."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.verb == "new":
            directory = arguments.directory or Path(f"openqrm-{arguments.name}")
            for file in new(arguments.name, Family(arguments.family), directory):
                print(file)
            print(f"next: pip install -e {directory}; openqrm plugin check {arguments.name}; restart the controller")
            return 0
        found = check(arguments.names)
    except (ValueError, OSError, OpenqrmError) as error:
        print(f"openqrm plugin: {error}", file=sys.stderr)
        return 1
    for name, wrong in found.items():
        print(f"{name}: {'ok' if not wrong else f'{len(wrong)} faults'}")
        for fault in wrong:
            print(f"  {fault}")
    return 1 if any(found.values()) else 0
