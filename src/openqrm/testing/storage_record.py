"""Results of conformance runs, one JSON file for each storage type and variant, from which the report is made.

With OPENQRM_CONFORMANCE_RECORD=DIRECTORY in the environment each test of a conformance suite notes how it ended. The
project's records are in `docs/reference/conformance`. A run of single tests leaves the others' results as they were.
"""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from openqrm.domain.errors import OpenqrmError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from openqrm.testing.storage_subject import Subject

VARIABLE = "OPENQRM_CONFORMANCE_RECORD"
KERNEL = "linux"
"""In `Subject.packages`: the host's own kernel does the work."""


class Recorded:
    """The base of all conformance suites: each test's result is noted, if that is asked for."""

    suites: ClassVar[tuple[str, ...]] = ()
    """The names of those that run: `pool`, `export`."""

    @pytest.fixture(autouse=True)
    async def _recorded(self, request: pytest.FixtureRequest, subject: Subject) -> AsyncIterator[None]:
        directory, failed = os.environ.get(VARIABLE), request.session.testsfailed
        software = await versions(subject) if directory else {}
        yield
        if directory:
            outcome = f"skipped: {subject.skipped}" if subject.skipped else "passed"
            if request.session.testsfailed > failed:
                outcome = "failed"
            note(Path(directory), subject, software, str(request.node.name), outcome, self.suites)


async def versions(subject: Subject) -> dict[str, str]:
    """The host's versions of the software that does the work; this machine's where the host has no packages."""
    found: dict[str, str] = {}
    for package in subject.packages:
        command = "uname -r" if package == KERNEL else f"dpkg-query -W -f '${{Version}}' {package}"
        try:
            found[package] = (await subject.shell(command)).strip()
        except OpenqrmError:
            done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)  # noqa: ASYNC221
            found[package] = done.stdout.strip() or "unknown"
    return found


def note(
    directory: Path, subject: Subject, software: dict[str, str], test: str, outcome: str, suites: tuple[str, ...]
) -> None:
    """Add one result to the record of a type."""
    file = directory / f"{'.'.join(filter(None, (subject.name, subject.variant)))}.json"
    known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    export = subject.export_declared
    tests = known.get("tests", {}) | {test: outcome}
    record = {
        "type": subject.name,
        "variant": subject.variant,
        "pool": subject.pool_declared.name,
        "export": export.name if export else "",
        "medium": str(subject.medium),
        "suites": list(suites),
        "host": subject.host_kind,
        "software": software,
        "date": datetime.now(UTC).date().isoformat(),
        "declared": sorted(str(each) for each in subject.declared),
        "secrets": sorted(export.secrets) if export else [],
        "tests": dict(sorted(tests.items())),
    }
    directory.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
