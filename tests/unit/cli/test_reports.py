"""What somebody sees of checks and audits, and what a program gets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openqrm.cli import reports
from openqrm.cli.failures import FAILED, FOUND, OK, CliError


def operation(number: int = 1, *findings: dict[str, str], **fields: Any) -> dict[str, Any]:
    report = {"storage": f"s{number}", "findings": list(findings), "fixed": [], "skipped": []}
    usual = {"id": number, "name": "storage.audit", "target_name": f"s{number}", "status": "done", "error": None}
    return {**usual, "result": {"report": {**report, **fields.pop("report", {})}}, **fields}


def finding(text: str = "it was made by hand") -> dict[str, str]:
    return {"kind": "unexpected grant", "subject": "/pool/a", "text": text, "remedy": "openqrm storage audit s1 --fix"}


def failed(number: int = 2) -> dict[str, Any]:
    return operation(number, status="failed", error={"detail": "the host does not answer"}, result=None)


def show(*ended: dict[str, Any], **options: Any) -> int:
    return reports.show(ended, **{"waited": True, "alone": len(ended) == 1, "as_json": False, **options})


def test_nothing_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(operation(1), operation(2)) == OK
    assert capsys.readouterr().out == "nothing found on s1, s2\n"


def test_findings_are_a_table_and_remedies_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(operation(1, finding(), finding("its generation is 7, not 1")), operation(2)) == FOUND
    told = capsys.readouterr()
    assert [line.split()[0] for line in told.out.splitlines()] == ["STORAGE", "s1", "s1"]
    assert "its generation is 7, not 1" in told.out
    assert told.err == "→ openqrm storage audit s1 --fix\n"


def test_what_was_set_right_or_left_out_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(operation(1, report={"fixed": [finding()], "skipped": ["leftovers: busy"]})) == OK
    told = capsys.readouterr()
    assert "s1: set right: unexpected grant, /pool/a: it was made by hand" in told.err
    assert "s1: not looked at: leftovers: busy" in told.err


def test_one_that_failed_counts_more_than_findings(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(operation(1, finding()), failed()) == FAILED
    assert "the host does not answer" in capsys.readouterr().err
    with pytest.raises(CliError, match="does not answer") as caught:
        show(failed())
    assert caught.value.code == FAILED


def test_programs_get_the_operation_or_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(operation(1, finding()), as_json=True) == FOUND
    assert json.loads(capsys.readouterr().out)["result"]["report"]["findings"] == [finding()]
    assert show(operation(1), failed(), as_json=True) == FAILED
    assert [one["status"] for one in json.loads(capsys.readouterr().out)["items"]] == ["done", "failed"]


def test_not_waiting_tells_the_operations_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(operation(1, status="queued", result=None), waited=False) == OK
    assert capsys.readouterr().out == "operation 1: storage.audit s1 queued\n"
