"""Following an operation to its end: a progress line and its steps on standard error."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from openqrm.cli.failures import FAILED, UNREACHABLE, CliError
from openqrm.cli.output import CONTROL, note, shortened

if TYPE_CHECKING:
    from openqrm.cli.client import Client

ENDED = ("done", "failed", "attention", "abandoned")
LOOK_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Pauses between looks; the last one repeats."""
AWAY_SECONDS = 300
"""How long the server may be away while we wait: it goes on with the operation when it is back."""


class Progress:
    """What was shown already. `quiet` shows nothing."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.live = sys.stderr.isatty() and not quiet
        self._shown: set[str] = set()

    def show(self, operation: dict[str, Any], steps: list[dict[str, Any]]) -> None:
        """New facts: a line for each step that ended, and on a terminal a line that is written over."""
        if self.quiet:
            return
        for step in steps:
            mark = f"{step['name']} {step['status']}"
            if step["status"] in ("done", "failed", "undone", "stuck") and mark not in self._shown and _tells(step):
                self._shown.add(mark)
                self._line(f"  {_sign(step['status'])} {step['title'] or step['name']}{_reason(step)}")
        if self.live:
            active = next((step for step in steps if step["status"] in ("acting", "undoing")), None)
            doing = (active["title"] or active["name"]) if active else operation["status"]
            far = active["output"].get("text") if active else ""
            text = f"  {operation['progress']:3}% {doing}{f' ({far})' if far else ''}".translate(CONTROL)[:100]
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()

    def end(self) -> None:
        """Take the line away."""
        if self.live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _line(self, text: str) -> None:
        self.end()
        note(text)


def follow(client: Client, operation: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Wait until the operation has ended and return it."""
    path = f"/v1/operations/{operation['id']}"
    progress = Progress(quiet=quiet)
    if not quiet:
        note(f"operation {operation['id']}: {operation['name']} {operation['target_name']}".rstrip())
    try:
        return _watched(client, operation, path, progress)
    except KeyboardInterrupt:
        progress.end()
        number = operation["id"]
        note(
            f"operation {number} goes on: openqrm operation show {number}; to end it: openqrm operation cancel {number}"
        )
        raise


def _watched(client: Client, operation: dict[str, Any], path: str, progress: Progress) -> dict[str, Any]:
    look, away, seen = 0, 0.0, None
    while True:
        try:
            operation = client.request("GET", path).data
            mark = (operation["status"], operation["progress"], operation["updated_at"])
            ended = operation["status"] in ENDED
            if not progress.quiet and (mark != seen or ended or look % 4 == 0):
                progress.show(operation, client.request("GET", f"{path}/steps").data["items"])
            seen, away = mark, 0.0
            if ended:
                progress.end()
                return operation
        except CliError as error:
            if error.code != UNREACHABLE or away >= AWAY_SECONDS:
                raise
            away += 1.0
            time.sleep(1.0)
        time.sleep(LOOK_SECONDS[min(look, len(LOOK_SECONDS) - 1)])
        look += 1


def failure(operation: dict[str, Any]) -> CliError | None:
    """The error an ended operation stands for; None when it is done."""
    if operation["status"] == "done":
        return None
    error = operation["error"] or {}
    error = error.get("stuck", error)  # an operation that needs attention tells what it is stuck at
    detail = error.get("detail") or f"it is {operation['status']}"
    output = shortened(str(error.get("output", "")))
    state = "needs attention" if operation["status"] == "attention" else operation["status"]
    text = f"operation {operation['id']} ({operation['name']}) {state}: {detail}"
    remedy = str(error.get("remedy", ""))
    if operation["status"] == "attention":
        number = operation["id"]
        remedy = (
            f"mend the cause, then: openqrm operation resume {number} (or give up: openqrm operation abandon {number})"
        )
    return CliError(f"{text}\n{output}" if output else text, FAILED, remedy=remedy, data=operation)


def _tells(step: dict[str, Any]) -> bool:
    """Whether its end says something: what only looked or waited, or never took effect, has nothing to take back."""
    if step["status"] != "undone":
        return True
    if step["kind"] in ("planning", "wait"):
        return bool(step["body"].get("undo_condition"))
    return step["kind"] != "change" or not step.get("error")  # a change that failed was rolled back


def _sign(status: str) -> str:
    return {"done": "✓", "undone": "↶", "failed": "✗", "stuck": "✗"}[status]


def _reason(step: dict[str, Any]) -> str:
    error = step.get("error")
    return f": {error.get('detail', '')}" if error and step["status"] in ("failed", "stuck") else ""
