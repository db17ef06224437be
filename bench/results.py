"""`bench/results.json`: figures at the top level, then the machine, the goals, and the details of each bench."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent / "results.json"
LIBRARIES = ("uvicorn", "uvloop", "httptools", "aiohttp", "fastapi", "pydantic", "sqlalchemy", "psycopg", "asyncssh")
_OWN_WORDS = ("date", "machine", "versions", "goals", "runs", "details")


@dataclass(frozen=True)
class Goal:
    """A limit on a figure, on two cores."""

    key: str
    limit: float
    least: bool = False

    def met(self, value: float) -> bool:
        """Whether a value keeps the limit."""
        return value >= self.limit if self.least else value < self.limit


GOALS = (
    Goal("list_25k_p95_ms", 50),
    Goal("heartbeats_per_s", 5000, least=True),
    Goal("dhcp_add_at_10k_ms", 50),
    Goal("boot_bytes_ratio_to_nginx", 0.8, least=True),
    Goal("cli_help_ms", 150),
    Goal("cli_completion_ms", 150),
    Goal("clone_10g_btrfs_ms", 200),
    Goal("clone_lvmthin_10g_to_100m", 1.2),
)


@dataclass(frozen=True)
class Taken:
    """How busy the machine was when a bench began (1-minute load average), and how long it took."""

    load_before: float
    seconds: float


def load(file: Path) -> dict[str, Any]:
    """What was measured before; empty when nothing was."""
    if not file.exists():
        return {}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def add(document: dict[str, Any], name: str, figures: dict[str, Any], suffix: str, taken: Taken) -> None:
    """Take a bench's figures in, in place of what it gave before."""
    details = figures.get("details", {})
    document |= {f"{key}{suffix}": value for key, value in figures.items() if key != "details"}
    document.setdefault("details", {})[f"{name}{suffix}"] = details
    document.setdefault("runs", {})[f"{name}{suffix}"] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(taken.seconds, 1),
        "load_before": round(taken.load_before, 2),
        "load_after": round(os.getloadavg()[0], 2),
    }
    document["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    document["machine"] = machine()
    document["versions"] = versions()
    document["goals"] = goals(document)


def goals(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Each goal with what was measured, on each database where there are two."""
    found = []
    for goal in GOALS:
        for key in (goal.key, f"{goal.key}_sqlite"):
            if key in document:
                limit = f"{'at least' if goal.least else 'under'} {goal.limit:g}"
                found.append({"key": key, "goal": limit, "value": document[key], "met": goal.met(document[key])})
    return found


def machine() -> dict[str, Any]:
    """What it was measured on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    return {"cpus": os.cpu_count(), "cpu_model": cpu, "memory_mb": memory, "system": platform.platform()}


def versions() -> dict[str, str]:
    """Of us, of Python and of what bears the load."""
    found = {"openqrm": version("openqrm"), "python": platform.python_version()}
    found |= {name: version(name) for name in LIBRARIES}
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=FILE.parent, capture_output=True, text=True, check=False
    )
    return found | ({"revision": revision.stdout.strip()} if revision.returncode == 0 else {})


def save(file: Path, document: dict[str, Any]) -> None:
    """Figures first, in the order of their names; replaced as a whole."""
    figures = {key: document[key] for key in sorted(document) if key not in _OWN_WORDS}
    ordered = figures | {key: document[key] for key in _OWN_WORDS if key in document}
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    fresh.replace(file)


def summary(document: dict[str, Any]) -> str:
    """The goals, one a line."""
    lines = [
        f"{'met   ' if goal['met'] else 'MISSED'} {goal['key']} = {goal['value']:g} ({goal['goal']})"
        for goal in document.get("goals", [])
    ]
    return "\n".join(lines)
