"""What checks and audits found: a table for people, the operations for programs, and an exit code for both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.cli import follow, output
from openqrm.cli.failures import FAILED, FOUND, OK

if TYPE_CHECKING:
    from collections.abc import Sequence


def show(ended: Sequence[dict[str, Any]], *, waited: bool, alone: bool, as_json: bool) -> int:
    """The findings of operations that have ended (or were only queued, unless `waited`); the exit code.

    `alone`: one target was named, and its operation is the answer.
    """
    failed = [error for one in ended if (error := follow.failure(one))] if waited else []
    reports = [found for one in ended if (found := _report(one))] if waited else []
    code = FAILED if failed else FOUND if any(one["findings"] for one in reports) else OK
    if as_json:
        output.as_json(ended[0] if alone else {"items": list(ended)})
        return code
    if not waited:
        for one in ended:
            print(f"operation {one['id']}: {one['name']} {one['target_name']} {one['status']}")
        return code
    _told(reports)
    if len(failed) == 1 and alone:
        raise failed[0]
    for error in failed:
        output.note(f"error: {error}")
    return code


def planned(plans: Sequence[Sequence[dict[str, Any]]]) -> bool:
    """What was found and what would be done about it, of dry runs; False when nothing was found."""
    found = [step["arguments"] for plan in plans for step in plan if step["name"] == "report"]
    if not any(report["findings"] for report in found):
        print("nothing found")
        return False
    rows = [[one["kind"], one["subject"], one["text"]] for report in found for one in report["findings"]]
    output.table(("kind", "about", "what"), rows)
    doing = [step for plan in plans for step in plan if step["kind"] not in ("planning", "change")]
    output.note("what would be done:")
    output.plan(doing)
    return True


def _report(operation: dict[str, Any]) -> dict[str, Any] | None:
    found: dict[str, Any] | None = (operation["result"] or {}).get("report")
    return found


def _told(reports: Sequence[dict[str, Any]]) -> None:
    rows = [
        [report["storage"], one["kind"], one["subject"], one["text"]]
        for report in reports
        for one in report["findings"]
    ]
    if rows:
        output.table(("storage", "kind", "about", "what"), rows)
    for report in reports:
        for one in report["fixed"]:
            output.note(f"{report['storage']}: set right: {one['kind']}, {one['subject']}: {one['text']}")
        for text in report["skipped"]:
            output.note(f"{report['storage']}: not looked at: {text}")
    remedies = dict.fromkeys(one["remedy"] for report in reports for one in report["findings"] if one["remedy"])
    for remedy in remedies:
        output.note(f"→ {remedy}")
    if reports and not rows:
        names = ", ".join(report["storage"] for report in reports)
        print(f"nothing found on {names}")
