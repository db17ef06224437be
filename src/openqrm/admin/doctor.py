"""`openqrm doctor`: what this machine lacks for what is enabled, and the remedy. Changes nothing.

It looks from outside: it needs neither a controller nor a database that answers, and says so when they do not.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from openqrm.admin import examination
from openqrm.domain.errors import OpenqrmError
from openqrm.operations.core_plugins import installed
from openqrm.settings import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.engine.plugins.catalogue import Catalogue
    from openqrm.settings import Settings


class Grade(StrEnum):
    """`error`: something enabled does not work. `warning`: it will not, or it is unusual."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    grade: Grade
    text: str
    remedy: str = ""


def examine(settings: Settings, catalogue: Catalogue) -> list[Finding]:
    """Everything that can be said now."""
    found: list[Finding] = []
    for subject, faults, fine in examination.examine(settings, catalogue):
        found += [Finding(subject, Grade(one.grade), one.text, one.remedy) for one in faults]
        if not faults and fine:
            found.append(Finding(subject, Grade.OK, fine))
    return found


def _lines(findings: Sequence[Finding]) -> list[str]:
    lines = []
    for one in findings:
        mark = {Grade.OK: "ok     ", Grade.WARNING: "WARNING", Grade.ERROR: "ERROR  "}[one.grade]
        lines.append(f"{mark} {one.subject}: {one.text}")
        if one.remedy:
            lines.append(f"        remedy: {one.remedy}")
    errors = sum(one.grade is Grade.ERROR for one in findings)
    warnings = sum(one.grade is Grade.WARNING for one in findings)
    lines.append(f"{errors} errors, {warnings} warnings")
    return lines


def main(argv: list[str]) -> int:
    """Run `openqrm doctor ARGV`: 0 nothing is wrong, 1 there are errors, 2 the settings cannot be read."""
    parser = argparse.ArgumentParser(prog="openqrm doctor", description="What this machine lacks, and the remedy.")
    parser.add_argument("--config", type=Path, help="settings file (default: /etc/openqrm/openqrm.toml)")
    parser.add_argument("--json", action="store_true", help="a list of findings as JSON")
    arguments = parser.parse_args(argv)
    try:
        settings = load(arguments.config)
    except (OSError, OpenqrmError) as error:
        print(f"openqrm doctor: the settings cannot be read: {error}", file=sys.stderr)
        return 2
    findings = examine(settings, installed())
    if arguments.json:
        print(json.dumps([asdict(one) for one in findings], indent=1))
    else:
        print("\n".join(_lines(findings)))
    return 1 if any(one.grade is Grade.ERROR for one in findings) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
