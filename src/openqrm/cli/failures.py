"""What can go wrong on the command line, each with its exit code."""

from __future__ import annotations

from typing import Any

OK = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
CONFLICT = 4
AUTH = 5
UNREACHABLE = 6
SERVER = 7
FOUND = 8
INTERRUPTED = 130

EXIT_CODES: dict[int, str] = {
    OK: "done",
    FAILED: "the operation was accepted and failed, was cancelled or needs attention",
    USAGE: "wrong usage, or an argument that the server refuses (422, 413, 415)",
    NOT_FOUND: "there is no such thing (404)",
    CONFLICT: "a state, another holder or a missing capability is in the way (409, 412, 429)",
    AUTH: "not logged in, or not allowed (401, 403)",
    UNREACHABLE: "the server does not answer, or its database is away (503)",
    SERVER: "the server failed, or a host it depends on (500, 502, 504)",
    FOUND: "a check or an audit is done and found what is not right",
    INTERRUPTED: "interrupted; an operation that was accepted goes on",
}
"""Documented in docs/reference/cli.md, which is generated from here."""

_OF_STATUS = {
    401: AUTH,
    403: AUTH,
    404: NOT_FOUND,
    405: USAGE,
    409: CONFLICT,
    412: CONFLICT,
    413: USAGE,
    415: USAGE,
    422: USAGE,
    429: CONFLICT,
    503: UNREACHABLE,
}


class CliError(Exception):
    """Ends the command with a message and an exit code; `data` is shown with `--json`."""

    def __init__(self, text: str, code: int, *, remedy: str = "", data: dict[str, Any] | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.remedy = remedy
        self.data = data or {"code": "cli", "detail": text, **({"remedy": remedy} if remedy else {})}


def of_answer(status: int, problem: dict[str, Any]) -> CliError:
    """The error for a refused request."""
    code = _OF_STATUS.get(status, SERVER)
    text = str(problem.get("detail") or problem.get("title") or f"the server answered {status}")
    further = [str(each.get("detail", "")) for each in problem.get("errors", ())[1:]]
    output = str(problem.get("output", "")).rstrip()
    lines = [text, *further, *([output] if output else [])]
    return CliError("\n".join(lines), code, remedy=str(problem.get("remedy", "")), data=problem)
