"""What somebody sees who waits for an operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.cli import output
from openqrm.cli.follow import Progress

if TYPE_CHECKING:
    import pytest


def step(name: str, kind: str, status: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "title": "", "kind": kind, "status": status, "body": {}, "error": None} | fields


def test_only_what_had_an_effect_is_shown_as_undone(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [
        step("plan", "planning", "undone"),
        step("grant", "run", "undone"),
        step("ready", "wait", "undone", body={"undo_condition": "resource.back"}),
        step("mark", "change", "undone"),
        step("rolled-back", "change", "undone", error={"detail": "in the way"}),
        step("running", "wait", "undone"),
        step("never", "run", "pending"),
    ]
    Progress(quiet=False).show({"progress": 0, "status": "undoing"}, steps)
    assert capsys.readouterr().err.split() == ["\u21b6", "grant", "\u21b6", "ready", "\u21b6", "mark"]


def test_a_shown_operation_tells_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """While it acts; not what it said when it was last asked."""
    said = {"progress": 40, "text": "copied 4,000 bytes"}
    acting = step("copied", "wait", "acting", attempts=1, output=said)
    output.steps([acting, acting | {"status": "done"}, acting | {"status": "pending", "output": {}}])
    assert capsys.readouterr().out.splitlines() == [
        "  1  acting   copied",
        "               40% copied 4,000 bytes",
        "  2  done     copied",
        "  3  pending  copied",
    ]


def test_what_a_command_said_is_shown_by_its_end() -> None:
    """Seven hundred lines of one complaint hide the error that they belong to."""
    said = "\n".join(f"line {number}" for number in range(1, 701))
    shown = output.shortened(said).splitlines()
    assert (shown[-1], len(shown)) == ("line 700", output.LAST_LINES + 1)
    assert "685 lines" in shown[0]
    assert output.shortened("one\ntwo\n") == "one\ntwo"
