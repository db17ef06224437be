"""The lines a machine writes on its stream, parsed. Pure; they come from outside and are bounded."""

from __future__ import annotations

import re
from dataclasses import dataclass

from openqrm.domain.event import Severity

MAX_LINE = 4096
"""Bytes of one line, as the protocol says."""
MAX_ID = 2**53
_NUMBER = re.compile(r"\d{1,15}")


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat: uptime in seconds, 1-minute load, memory and swap in KiB, CPUs and NICs."""

    uptime: float = 0
    load: float = 0
    memory_total: int = 0
    memory_available: int = 0
    swap_total: int = 0
    swap_free: int = 0
    cpus: int = 0
    nics: int = 0


@dataclass(frozen=True, slots=True)
class Ack:
    """An order was taken."""

    order_id: int


@dataclass(frozen=True, slots=True)
class OrderProgress:
    """How far an order is."""

    order_id: int
    percent: int
    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """An order is finished; status 0 is success, as for a command."""

    order_id: int
    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Log:
    """Something to remember."""

    severity: Severity
    text: str


Message = Beat | Ack | OrderProgress | Done | Log


def _float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value < 1e12 else 0.0


def _int(text: str) -> int:
    return int(text) if _NUMBER.fullmatch(text) else 0


def _beat(words: list[str]) -> Beat:
    """What is missing or makes no sense counts as 0: a heartbeat says above all that the machine is there."""
    pairs = dict(word.split("=", 1) for word in words if "=" in word)
    get = pairs.get
    return Beat(
        _float(get("u", "0")), _float(get("l", "0")), _int(get("mt", "0")), _int(get("ma", "0")),
        _int(get("st", "0")), _int(get("sf", "0")), _int(get("c", "0")), _int(get("n", "0")),
    )  # fmt: skip


def parse(line: bytes) -> Message | None:
    """The message in a line, or None for one that this controller does not know."""
    text = line[:MAX_LINE].decode("utf-8", "replace").strip()
    verb, _, rest = text.partition(" ")
    if verb == "hb":
        return _beat(rest.split())
    if verb == "log":
        severity, _, words = rest.partition(" ")
        if severity not in {str(known) for known in Severity}:
            severity, words = Severity.INFO, rest
        return Log(Severity(severity), _clean(words))
    number, _, rest = rest.partition(" ")
    if not _NUMBER.fullmatch(number) or int(number) > MAX_ID:
        return None
    return _about_order(verb, int(number), rest)


def _about_order(verb: str, order_id: int, rest: str) -> Message | None:
    if verb == "ack":
        return Ack(order_id)
    number, _, words = rest.partition(" ")
    if verb == "progress":
        return OrderProgress(order_id, min(_int(number), 100), _clean(words))
    if verb == "done":
        # Anything but a plain 0 is a failure, also a status that cannot be read.
        return Done(order_id, int(number) if re.fullmatch(r"\d{1,3}", number) else 1, _clean(words))
    return None


def _clean(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text).strip()
