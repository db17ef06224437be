"""Results of conformance runs, one JSON file for each storage type and variant, from which the report is made.

With OPENQRM_CONFORMANCE_RECORD=DIRECTORY in the environment each test of a conformance suite notes how it ended, when,
and on what code. The project's records are in `docs/reference/conformance`. A run of single tests leaves the others'
results as they were; a test whose fixtures fail has failed.
"""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from openqrm.domain.errors import OpenqrmError
from openqrm.testing.storage_code import fingerprint, named_by, packages_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

    from openqrm.testing.storage_subject import Subject

VARIABLE = "OPENQRM_CONFORMANCE_RECORD"
KERNEL = "linux"
"""In `Subject.packages`: the host's own kernel does the work."""
_OUTCOME = pytest.StashKey[str]()


class Watcher:
    """A pytest plug-in that sees how tests end, also those whose fixtures fail."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
        """Of a conformance suite's test: `_recorded` notes it where there is a subject."""
        report: pytest.TestReport = (yield).get_result()
        if not issubclass(getattr(item, "cls", None) or object, Recorded):
            return
        if call.when == "call":
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            item.stash[_OUTCOME] = f"skipped: {why.removeprefix('Skipped: ')}" if report.skipped else report.outcome
        elif report.failed:
            note_failure(self.directory, _source(item), item.name)


class Recorded:
    """The base of all conformance suites: each test's result is noted, if that is asked for."""

    suites: ClassVar[tuple[str, ...]] = ()
    """The names of those that run: `pool`, `export`."""

    @pytest.fixture(scope="session", autouse=True)
    @classmethod
    def _watched(cls, pytestconfig: pytest.Config) -> None:
        """Of the session, so that it is there before any other fixture can fail."""
        name, directory = f"{__name__}.watcher", os.environ.get(VARIABLE)
        if directory and not pytestconfig.pluginmanager.has_plugin(name):
            pytestconfig.pluginmanager.register(Watcher(Path(directory)), name)

    @pytest.fixture(autouse=True)
    async def _recorded(self, request: pytest.FixtureRequest, subject: Subject) -> AsyncIterator[None]:
        directory = os.environ.get(VARIABLE)
        software = await versions(subject) if directory else {}
        yield
        outcome = f"skipped: {subject.skipped}" if subject.skipped else request.node.stash.get(_OUTCOME, "")
        if directory and outcome:  # without one the run was interrupted in the middle of the test
            given = (software, str(request.node.name), outcome, self.suites, _source(request.node))
            note(Path(directory), subject, *given)


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


def note(  # what a record holds of one test
    directory: Path,
    subject: Subject,
    software: dict[str, str],
    test: str,
    outcome: str,
    suites: tuple[str, ...],
    source: str = "",
) -> None:
    """Add one result to the record of a type. `source` is the class that the test is of, as pytest names it."""
    file = directory / f"{'.'.join(filter(None, (subject.name, subject.variant)))}.json"
    known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    export = subject.export_declared
    code, run_on = _code(named_by(subject))
    record = {
        "type": subject.name,
        "variant": subject.variant,
        "pool": subject.pool_declared.name,
        "export": export.name if export else "",
        "medium": str(subject.medium),
        "suites": list(suites),
        "from": sorted({*known.get("from", ()), source} - {""}),
        "host": subject.host_kind,
        "software": software,
        "date": _today(),
        "declared": sorted(str(each) for each in subject.declared),
        "secrets": sorted(export.secrets) if export else [],
        "code": list(code),
        "tests": known.get("tests", {}) | {test: outcome},
        "run": known.get("run", {}) | {test: f"{_today()} {run_on}"},
    }
    _write(file, record)


def note_failure(directory: Path, source: str, test: str) -> None:
    """A test that had passed in this class did not even begin: its old result is not true any more."""
    for file in directory.glob("*.json"):
        record = json.loads(file.read_text(encoding="utf-8"))
        if source in record.get("from", ()):
            record["tests"][test] = "failed"
            record["run"][test] = f"{_today()} {fingerprint(record['code'])}"
            _write(file, record)


@cache
def _code(packages: frozenset[str]) -> tuple[tuple[str, ...], str]:
    """What this process runs: loaded once, it stays what it was."""
    found = tuple(packages_of(packages))
    return found, fingerprint(found)


def _write(file: Path, record: dict[str, Any]) -> None:
    record |= {name: dict(sorted(record[name].items())) for name in ("tests", "run")}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _source(item: pytest.Item) -> str:
    return item.nodeid.rpartition("::")[0]
