"""Tables and records for people, JSON for programs."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

LAST_LINES = 15
"""Of a command's output, on a terminal."""
CONTROL = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if code not in (9, 10)}
"""Characters that could drive a terminal; what machines report is not trusted."""


def as_json(data: Any) -> None:
    """One document on standard output."""
    json.dump(data, sys.stdout, ensure_ascii=False, indent=1)
    sys.stdout.write("\n")


def clean(value: Any) -> str:
    """A value as one line of text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
    if len(text) > 19 and text[10:11] == "T" and text.endswith("Z") and text[:4].isdigit():
        text = text[:19].replace("T", " ")
    return text.translate(CONTROL).replace("\n", " ")


def table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns as wide as their contents; the last one is cut at the terminal's edge."""
    cells = [[clean(value) for value in row] for row in rows]
    widths = [max([len(title), *(len(row[place]) for row in cells)]) for place, title in enumerate(titles)]
    edge = shutil.get_terminal_size((200, 24)).columns if sys.stdout.isatty() else 10_000
    for row in ([title.upper() for title in titles], *cells):
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        print(line[:edge])


def record(data: dict[str, Any], titles: dict[str, str]) -> None:
    """One record, a field per line."""
    width = max((len(titles.get(name, name)) for name in data), default=0)
    for name, value in data.items():
        print(f"{titles.get(name, name).ljust(width)}  {clean(_brief(value))}")


def _brief(value: Any) -> Any:
    """An error's output by its end."""
    if not isinstance(value, dict) or not isinstance(value.get("output"), str):
        return value
    return value | {"output": shortened(value["output"])}


def plan(found: Sequence[dict[str, Any]]) -> None:
    """The steps of a dry run, by their titles."""
    for number, step in enumerate(found, start=1):
        print(f"{number:3}  {clean(step.get('kind')):8}  {clean(step.get('title') or step.get('name'))}")


def shortened(text: str) -> str:
    """The end of what a command said, where its reason usually is; `--json` has all that was kept."""
    lines = text.rstrip().splitlines()
    left_out = len(lines) - LAST_LINES
    return "\n".join(lines if left_out <= 0 else [f"(… {left_out} lines; --json has them)", *lines[-LAST_LINES:]])


def steps(found: Sequence[dict[str, Any]]) -> None:
    """What became of an operation's steps: status, tries, and below a step that failed its error and output."""
    width = max((len(clean(step["status"])) for step in found), default=0)
    for number, step in enumerate(found, start=1):
        tries = f" ({step['attempts']} tries)" if step["attempts"] > 1 else ""
        print(f"{number:3}  {clean(step['status']).ljust(width)}  {clean(step['title'] or step['name'])}{tries}")
        error = step["error"] or {}
        far = step["output"].get("text") if step["status"] == "acting" else ""
        if far:
            print(f"{'':{7 + width}}{step['output'].get('progress', 0):3}% {clean(far)}")
        lines = [str(error.get("detail", "")), *shortened(str(error.get("output", ""))).splitlines()]
        if error.get("remedy"):
            lines.append(f"→ {error['remedy']}")
        for line in lines:
            if line.strip():
                print(f"{'':{7 + width}}{clean(line)}")


def note(text: str) -> None:
    """A line for people beside the answer: on standard error, behind what was printed before it."""
    sys.stdout.flush()
    print(text.translate(CONTROL), file=sys.stderr)
