"""The controller's side of the host gate: its command line, its answers, its installation."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from openqrm.domain.errors import CommandFailedError, OpenqrmError, StaleError, TimeoutPassedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.engine.ports import GateToken
    from openqrm.remote.channel import Raw

DIRECTORY = "/var/lib/openqrm/gate"
_NAME = re.compile(r"[A-Za-z0-9_@:-][A-Za-z0-9._@:-]{0,199}")
_PROGRESS = re.compile(rb"^openqrm-progress (\d{1,3}) ?([^\n]*)\n", re.MULTILINE)
_CLOSING = re.compile(rb"\nopenqrm-gate: ([a-z]+) ?([^\n]*)\n\Z")

INSTALL = """\
set -eu
umask 077
mkdir -p "$1"
new=$(mktemp "$1/.new.XXXXXX")
trap 'rm -f "$new"' EXIT
cat >"$new"
[ "$(sha256sum <"$new")" = "$2  -" ]
if [ "$(sha256sum <"$1/openqrm-gate" 2>/dev/null)" != "$2  -" ]; then
    chmod 0755 "$new"
    mv -f "$new" "$1/openqrm-gate"
fi
"""
"""Run as `sh -c`, with the directory, the script's SHA-256 and the script as input. Replaces it atomically."""


@cache
def script() -> bytes:
    """The gate as it is shipped."""
    return files("openqrm").joinpath("node/gate/openqrm-gate").read_bytes()


def install_argv(directory: str) -> tuple[str, ...]:
    """The command that installs `script()`, given as input."""
    return ("sh", "-c", INSTALL, "install-gate", directory, hashlib.sha256(script()).hexdigest())


def _name(text: str) -> str:
    """The text as a file name the gate takes; anything longer or stranger by its digest."""
    return text if _NAME.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()


def run_argv(directory: str, gate: GateToken, argv: Sequence[str], data: bytes, seconds: float) -> tuple[str, ...]:
    """`argv` behind the gate. The input's size goes along, so that one cut short is never taken for the whole."""
    options = ("-i", str(len(data)), "-t", str(max(1, math.ceil(seconds))))
    token = (_name(gate.volume), str(gate.generation), str(gate.epoch), _name(gate.key))
    return (f"{directory}/openqrm-gate", "run", *options, *token, "--", *argv)


def cancel_argv(directory: str, gate: GateToken) -> tuple[str, ...]:
    """Ends the command that runs under this token's key."""
    return (f"{directory}/openqrm-gate", "cancel", _name(gate.volume), _name(gate.key))


def progress_argv(directory: str, gate: GateToken) -> tuple[str, ...]:
    """Asks what `parse_progress` reads."""
    return (f"{directory}/openqrm-gate", "progress", _name(gate.volume), _name(gate.key))


def parse_progress(output: bytes) -> tuple[int, str] | None:
    """Percent and text of the last line in which a command said how far it is; None when it said nothing."""
    said = _PROGRESS.findall(output)
    return (min(int(said[-1][0]), 100), said[-1][1].decode(errors="replace")) if said else None


def highest_argv(directory: str) -> tuple[str, ...]:
    """Lists what `parse_highest` reads."""
    return (f"{directory}/openqrm-gate", "highest")


def parse_highest(output: str) -> dict[str, tuple[int, int]]:
    """(generation, epoch) by volume. ValueError for anything else."""
    lines = [line.split() for line in output.splitlines()]
    return {volume: (int(generation), int(epoch)) for volume, generation, epoch in lines}


@dataclass(frozen=True)
class Answer:
    """The gate's closing line, and the command's own standard error in front of it."""

    word: str
    text: str
    stderr: bytes


def understand(raw: Raw) -> Answer | None:
    """The gate's answer, or None when there is none: it is not installed, or it was killed.

    How far the command was on its way is no part of what it said in the end.
    """
    found = _CLOSING.search(raw.stderr)
    if found is None:
        return None
    said = _PROGRESS.sub(b"", raw.stderr[: found.start() + 1])
    return Answer(found[1].decode(), found[2].decode(errors="replace"), said.removesuffix(b"\n"))


def refusal(answer: Answer, host: int, gate: GateToken) -> OpenqrmError:
    """The error for an answer other than `ended` and `superseded`."""
    where = f"{gate.volume} on resource {host}"
    match answer.word:
        case "stale":
            return StaleError(f"{where}: {answer.text}")
        case "timeout":
            return TimeoutPassedError(f"{where}: {answer.text}")
        case "unknown":
            return UnreachableError(f"{where}: {answer.text}; the host may have been restarted meanwhile")
    return CommandFailedError(
        f"the host gate for {where} could not run the command: {answer.text}",
        output=answer.text,
        remedy=f"look at the disk that holds {DIRECTORY} on that host",
    )
