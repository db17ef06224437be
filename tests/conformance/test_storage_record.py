"""What a run of a conformance suite notes: how each test ended, also one that never began, when, and on what code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

import openqrm.plugins.storage.aoe.plugin as aoe
import openqrm.plugins.storage.file.plugin as file
from openqrm.testing import storage_code
from openqrm.testing.storage_record import VARIABLE
from openqrm.testing.storage_subject import Subject

if TYPE_CHECKING:
    from pathlib import Path

SUITE = """
import os
import pytest
from openqrm.testing.storage_record import Recorded
from openqrm.testing.storage_subject import Subject
from openqrm.testing.toy_storage.plugin import PLUGIN

@pytest.fixture(scope="module")
def host():
    assert "NO_HOST" not in os.environ

class TestToy(Recorded):
    suites = ("pool",)

    @pytest.fixture
    def subject(self, host):
        assert "NO_SUBJECT" not in os.environ
        given = {"hosts": None, "host": 0, "address": "", "dead_host": 1}
        yield Subject.alone(PLUGIN, "toy", **given)
        assert "NO_END" not in os.environ

    def test_good(self, subject): pass
    def test_bad(self, subject): assert "BETTER" in os.environ
    def test_skipped(self, subject): subject.skip("no time")
    def test_skipped_otherwise(self): pytest.skip("no moon")
"""
FIRST = {
    "test_bad": "failed",
    "test_good": "passed",
    "test_skipped": "skipped: no time",
    "test_skipped_otherwise": "skipped: no moon",
}


def run(directory: Path, *words: str, **environment: str) -> dict[str, Any]:
    """The record after a run."""
    (directory / "test_toy.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", *words]
    known = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        command,
        cwd=directory,
        env=known | {VARIABLE: str(directory / "records")} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, Any] = json.loads((directory / "records" / "toy.json").read_text())
    return found


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of a whole run, made once."""
    return run(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def after_it(before: dict[str, Any], tmp_path: Path) -> Path:
    """A directory where such a run was, in January."""
    (tmp_path / "records").mkdir()
    old = before | {"run": dict.fromkeys(FIRST, "2026-01-01 0123456789ab")}
    (tmp_path / "records" / "toy.json").write_text(json.dumps(old))
    return tmp_path


def test_how_each_test_ended(before: dict[str, Any]) -> None:
    record = before
    assert record["tests"] == FIRST
    assert record["from"] == ["test_toy.py::TestToy"]
    assert record["code"] == ["openqrm.testing.toy_storage"]
    noted = f"{datetime.now(UTC).date().isoformat()} {storage_code.fingerprint(record['code'])}"
    assert record["run"] == dict.fromkeys(FIRST, noted)


def test_a_run_of_one_test_changes_that_one(after_it: Path) -> None:
    after = run(after_it, "-k", "test_bad", BETTER="yes")
    assert after["tests"] == FIRST | {"test_bad": "passed"}
    assert [name for name in FIRST if after["run"][name] != "2026-01-01 0123456789ab"] == ["test_bad"]


@pytest.mark.parametrize("broken", ["NO_HOST", "NO_SUBJECT", "NO_END"])
def test_a_fixture_that_fails_leaves_nothing_passed(after_it: Path, broken: str) -> None:
    """Whether it is of the module, so that no fixture of the test began, of the test, or failed at its end."""
    record = run(after_it, "-k", "test_good", **{broken: "yes"})
    assert record["tests"] == FIRST | {"test_good": "failed"}
    assert not record["run"]["test_good"].startswith("2026-01-01")


def test_the_code_of_a_join_is_that_of_both_plug_ins() -> None:
    subject = Subject.join(file.PLUGIN, "file", aoe.PLUGIN, "aoe", hosts=None, host=0, address="", dead_host=1)
    assert storage_code.packages_of(storage_code.named_by(subject)) == [
        "openqrm.plugins.storage.aoe",
        "openqrm.plugins.storage.file",
    ]


def test_a_fingerprint_is_of_all_that_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts and hooks of machines too, and shared parts; pages and what Python keeps are none of it."""
    package = tmp_path / "shelf_of_a_test"
    texts = {"__init__.py": "", "driver.py": "one = 1", "scripts/pool": "facts", "node/root-mount": "mount"}
    for name, text in texts.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    found = {storage_code.fingerprint([package.name])}
    for name in ("driver.py", "scripts/pool", "node/root-mount"):
        (package / name).write_text("changed")
        found.add(storage_code.fingerprint([package.name]))
    assert len(found) == 4
    (package / "README.md").write_text("a page")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "driver.pyc").write_text("compiled")
    assert storage_code.fingerprint([package.name]) in found
    monkeypatch.setattr(storage_code, "SHARED", ("script_pool.py",))
    assert storage_code.fingerprint([package.name]) not in found
    assert storage_code.fingerprint(["no_such_package"]) not in found
