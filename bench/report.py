"""The table of results in the documentation, written from `bench/results.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.results import GOALS, Goal

PAGE = Path(__file__).resolve().parent.parent / "docs" / "explanation" / "performance.md"
BEGIN, END = "<!-- results: written by python -m bench -->", "<!-- end of results -->"

TITLES = {
    "list_25k_p50_ms": "list of resources at 25,000, median, ms",
    "list_25k_p95_ms": "list of resources at 25,000, 95th percentile, ms",
    "list_queries": "statements of the costliest list (the same at 1,000)",
    "enrol_per_s": "unknown machines registered, per second",
    "heartbeats_per_s": "heartbeats stored, per second",
    "dhcp_add_at_10k_ms": "address added to DHCP beside 10,000, 95th percentile, ms",
    "boot_bytes_ratio_to_nginx": "boot files, bytes per second by nginx's",
    "start_1000_wall_s": "1,000 appliances started at once, s",
    "controller_rss_mb": "memory of a controller with 25,000 resources, MiB",
    "cli_help_ms": "`openqrm --help`, ms",
    "cli_entity_help_ms": "`openqrm appliance start --help`, ms",
    "cli_completion_ms": "completion of a word, ms",
    "clone_10g_btrfs_ms": "clone of a golden image of 10 GB, btrfs, ms",
    "clone_10g_lvmthin_ms": "the same on thin LVM, on an emulated machine, ms",
    "clone_lvmthin_10g_to_100m": "its time by that of 100 MB",
    "clone_10g_copy_ms": "the same as a plain copy, ms",
}


def table(document: dict[str, Any]) -> str:
    """Markdown: figures by database, the goal, and how the machine was."""
    goals = {goal.key: goal for goal in GOALS}
    lines = ["| figure | PostgreSQL | SQLite | goal |", "| --- | --- | --- | --- |"]
    for key, title in TITLES.items():
        if key in document or f"{key}_sqlite" in document:
            lines.append(f"| {title} | {_cells(document, key)} | {_goal(document, goals.get(key), key)} |")
    machine, versions = document["machine"], document["versions"]
    loads = [run["load_before"] for run in document["runs"].values()]
    about = (
        f"Taken {document['date'][:10]} at revision {versions.get('revision', 'unknown')}: {machine['cpus']} CPUs "
        f"({machine['cpu_model']}), {machine['memory_mb'] // 1024} GiB; load average when the benches began "
        f"{min(loads):.1f} to {max(loads):.1f}; Python {versions['python']}."
    )
    return "\n".join([*lines, "", about])


def _cells(document: dict[str, Any], key: str) -> str:
    sqlite = document.get(f"{key}_sqlite")
    first = f"{document[key]:g}" if key in document else ""
    if sqlite is None:
        return f"{first} | "
    return f"{first} | {sqlite:g}"


def _goal(document: dict[str, Any], goal: Goal | None, key: str) -> str:
    if goal is None:
        return ""
    values = [document[name] for name in (key, f"{key}_sqlite") if name in document]
    verdict = "met" if all(goal.met(value) for value in values) else "**missed**"
    return f"{'≥' if goal.least else '<'} {goal.limit:g}: {verdict}"


def write(document: dict[str, Any], page: Path = PAGE) -> None:
    """Put the table between its marks. ValueError when they are not there."""
    text = page.read_text(encoding="utf-8")
    before, found, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise ValueError(f"{page} has no place for the results")
    page.write_text(f"{before}{BEGIN}\n{table(document)}\n{END}{after}", encoding="utf-8")
