"""The report on conformance: what is in records is on the page, and what is missing or old is said."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from openqrm.engine.plugins.catalogue import discover
from openqrm.engine.plugins.declarations import Declared, merge
from openqrm.plugin_api.drivers import StorageType
from openqrm.plugin_api.plugin import Plugin
from openqrm.testing import storage_report as report
from openqrm.testing.storage_record import note
from openqrm.testing.storage_subject import Subject
from openqrm.testing.storage_suite import ExportSuite, PoolSuite
from openqrm.testing.toy_storage.plugin import PLUGIN

TODAY = datetime.now(UTC).date().isoformat()


def declared_with(*more: StorageType) -> Declared:
    whole = Plugin(**{name: getattr(PLUGIN, name) for name in ("name", "family", "title", "summary", "module")})
    plugin = Plugin(**{**vars(whole), "provides": (*PLUGIN.provides, *more)})
    declared, broken = merge((("test", plugin),))
    assert broken == ()
    return declared


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """All tests of the toy type passed, but for one that its fixture could not run."""
    subject = Subject.join(PLUGIN, "toy", PLUGIN, "toy", hosts=None, host=0, address="", dead_host=1)
    subject.variant, subject.host_kind = "one", "this machine"
    for suite in (PoolSuite, ExportSuite):
        for test in (name for name in dir(suite) if name.startswith("test_")):
            how = "skipped: the fixture gives no crash" if "dies" in test else "passed"
            note(tmp_path / report.RECORDS, subject, {"toyd": "1.0"}, f"{test}[x]", how, ("pool", "export"))
    (tmp_path / report.PAGE).write_text(report.page(tmp_path, declared_with()), encoding="utf-8")
    return tmp_path


def change(directory: Path, **fields: Any) -> None:
    file = directory / report.RECORDS / "toy-toy.one.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def test_nothing_is_missing(directory: Path) -> None:
    assert report.faults(directory, declared_with()) == []
    head, _, row = rows(report.page(directory, declared_with()))[:3]
    assert row[:2] == ["toy-toy one", "this machine: toyd 1.0"]
    assert dict(zip(head, row, strict=True))["revoke-proof"] == "yes"
    assert row[-1] == "refused"


def test_a_type_without_record(directory: Path) -> None:
    more = declared_with(StorageType("toy-storage", "Toy", "toy", "toy"))
    assert "storage type toy-storage has no record of a conformance run" in report.faults(directory, more)


def test_what_failed_or_was_not_run(directory: Path) -> None:
    record = json.loads((directory / report.RECORDS / "toy-toy.one.json").read_text())
    tests = record["tests"] | {"test_exactly_one_client[x]": "failed"}
    del tests["test_names_at_their_limits[x]"]
    change(directory, tests=tests)
    said = report.faults(directory, declared_with())
    assert "toy-toy one: test_exactly_one_client[x] failed" in said
    assert "toy-toy one: not run: test_names_at_their_limits" in said
    head, _, row = rows(report.page(directory, declared_with()))[:3]
    assert dict(zip(head, row, strict=True))["authorize"] == "failed"


def test_capabilities_that_changed_since(directory: Path) -> None:
    change(directory, declared=["clone"])
    said = report.faults(directory, declared_with())
    assert "toy-toy one: its capabilities are others since it was run" in said
    assert any(each.endswith("is stale: python -m openqrm.testing.storage_report write") for each in said)


def test_one_that_trusts_its_network(directory: Path) -> None:
    change(directory, secrets=[])
    assert rows(report.page(directory, declared_with()))[2][-1] == "let in: trusts the storage network"


def cells(directory: Path) -> dict[str, str]:
    head, _, row = rows(report.page(directory, declared_with()))[:3]
    return dict(zip(head, row, strict=True))


CUT, RESTART = "a cut link", "a restart"
PARTS = (
    ("clone", "test_a_clone_has_all_that_is_in_a_tree", "all that is in a tree"),
    ("fill", "test_a_broken_archive_leaves_the_volume_empty", "a broken archive"),
    ("resize", "test_a_volume_does_not_shrink", "not shrinking"),
    ("authorize", "test_a_grant_survives_a_restart_and_so_does_a_revocation", RESTART),
    ("revoke-proof", "test_a_grant_survives_a_restart_and_so_does_a_revocation", RESTART),
    ("revoke-proof", "test_nothing_is_written_after_a_revocation_while_the_link_is_down", CUT),
    ("lend", "test_what_is_lent_stays_so_over_a_restart", RESTART),
)
FIRSTS = (
    ("clone", "test_a_clone_is_a_copy_of_its_own"),
    ("clone-cow", "test_a_clone_shares_what_is_not_changed"),
    ("fill", "test_an_archive_is_unpacked_whole"),
    ("snapshot", "test_a_snapshot_holds_only_what_differs"),
    ("resize", "test_a_volume_grows_with_its_file_system"),
    ("list", "test_a_volume_is_made_and_removed"),
    ("authorize", "test_exactly_one_client"),
    ("shared", "test_exactly_one_client"),
    ("lend", "test_many_read_and_none_of_them_writes"),
    ("revoke-proof", "test_nothing_is_written_after_a_revocation"),
)


def ended(directory: Path, test: str, how: str) -> None:
    record = json.loads((directory / report.RECORDS / "toy-toy.one.json").read_text())
    assert f"{test}[x]" in record["tests"]
    change(directory, tests=record["tests"] | {f"{test}[x]": how})


@pytest.mark.parametrize(("capability", "test", "what"), PARTS)
def test_what_is_shown_without_a_part_of_it(directory: Path, capability: str, test: str, what: str) -> None:
    assert cells(directory)[capability] == "yes"
    ended(directory, test, "skipped: it does not declare fill")
    assert cells(directory)[capability] == "yes"
    ended(directory, test, "skipped: the fixture gives no such thing")
    assert cells(directory)[capability] == f"yes, without: {what}"
    ended(directory, test, "failed")
    assert cells(directory)[capability] == "failed"


@pytest.mark.parametrize(("capability", "test"), FIRSTS)
def test_what_is_shown_by_nothing_else(directory: Path, capability: str, test: str) -> None:
    assert cells(directory)[capability] == "yes"
    ended(directory, test, "skipped: the fixture gives no such thing")
    assert cells(directory)[capability] == "not run"
    ended(directory, test, "failed")
    assert cells(directory)[capability] == "failed"


def test_a_parameter_that_was_not_run_is_not_covered_by_another(directory: Path) -> None:
    record = json.loads((directory / report.RECORDS / "toy-toy.one.json").read_text())
    change(directory, tests=record["tests"] | {"test_an_archive_is_unpacked_whole[y]": "skipped: no gzip"})
    assert cells(directory)["fill"] == "yes, without: a whole archive"


def test_code_that_changed_since(directory: Path) -> None:
    """It is on the page, and no fault; but a page that does not say it is one, and so is what was not run on this."""
    assert cells(directory)["date"] == TODAY
    record = json.loads((directory / report.RECORDS / "toy-toy.one.json").read_text())
    test = "test_exactly_one_client[x]"
    change(directory, run=record["run"] | {test: "2026-01-01 0123456789ab"})
    assert cells(directory)["date"] == f"2026-01-01 to {TODAY} †"
    assert any("is stale" in each for each in report.faults(directory, declared_with()))
    (directory / report.PAGE).write_text(report.page(directory, declared_with()), encoding="utf-8")
    assert "† The code has changed since" in (directory / report.PAGE).read_text(encoding="utf-8")
    assert report.faults(directory, declared_with()) == []
    change(directory, tests={name: how for name, how in record["tests"].items() if name != test})
    (directory / report.PAGE).write_text(report.page(directory, declared_with()), encoding="utf-8")
    assert report.faults(directory, declared_with()) == ["toy-toy one: not run: test_exactly_one_client"]


def test_a_record_that_does_not_know_its_code(directory: Path) -> None:
    """As they were before it was noted."""
    file = directory / report.RECORDS / "toy-toy.one.json"
    record = json.loads(file.read_text())
    old = {name: value for name, value in record.items() if name not in ("run", "code", "from")}
    old["tests"] = {name: how for name, how in record["tests"].items() if name != "test_exactly_one_client[x]"}
    file.write_text(json.dumps(old))
    text = report.page(directory, declared_with())
    (directory / report.PAGE).write_text(text, encoding="utf-8")
    assert cells(directory)["date"] == f"{TODAY} †"
    assert "- not run yet: `test_exactly_one_client`" in text
    assert report.faults(directory, declared_with()) == []


def test_what_the_host_has_not(directory: Path) -> None:
    record = json.loads((directory / report.RECORDS / "toy-toy.one.json").read_text())
    cow = {"test_a_clone_shares_what_is_not_changed[x]": "skipped: this host has no clone-cow"}
    change(directory, tests=record["tests"] | cow)
    head, _, row = rows(report.page(directory, declared_with()))[:3]
    assert dict(zip(head, row, strict=True))["clone-cow"] == "not on this host"


def test_what_is_shown_in_another_way_counts(directory: Path) -> None:
    more = declared_with(StorageType("toy-storage", "Toy", "toy", "toy"))
    by_hand = {"type": "toy-storage", "pool": "toy", "export": "toy", "shown_by": "a boot", "date": "2026-01-01"}
    (directory / report.RECORDS / "toy-storage.json").write_text(json.dumps(by_hand))
    (directory / report.PAGE).write_text(report.page(directory, more), encoding="utf-8")
    assert report.faults(directory, more) == []
    assert ["toy-storage", "a boot", "2026-01-01 †"] in rows(report.page(directory, more))


def test_pools_are_no_exports_and_parts_are_called_so(directory: Path) -> None:
    joined = StorageType("toy-storage", "Toy", "toy", "toy")
    part = {"type": "other", "pool": "toy", "export": "", "shown_by": "in part, by hand", "date": "2026-01-01"}
    through = {"type": "third", "pool": "p", "export": "toy", "shown_by": "a boot", "date": "2026-01-01"}
    for each in (part, through):
        (directory / report.RECORDS / f"{each['type']}.json").write_text(json.dumps(each))
    found = rows(report.page(directory, declared_with(joined)))
    assert ["toy-storage", "other *in part*, toy-toy", "third, toy-toy"] in found
    assert ["other", "in part, by hand", "2026-01-01 †"] in found


def test_every_declared_type_is_on_the_projects_page() -> None:
    """`OPENQRM_CONFORMANCE_RECORD=docs/reference/conformance` in the environment of a run records what it shows."""
    directory = Path(__file__).parents[2] / "docs" / "reference"
    assert report.faults(directory, discover().declared) == []
