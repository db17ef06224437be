"""One structured line for every command, for syslog and the journal; secrets are masked.

The engine says what a command is for (`about`), whoever runs it logs it once with what it came to.
"""

from __future__ import annotations

import json
import logging
import shlex
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING

from openqrm.plugin_api.values import MASK

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openqrm.engine.ports import GateToken, Ready

LOGGER = logging.getLogger("openqrm.command")
LINE_LIMIT = 2000
"""Characters of a command that are logged; a script given as an argument can be long."""

_purpose: ContextVar[Mapping[str, object]] = ContextVar("purpose", default=MappingProxyType({}))


@contextmanager
def about(purpose: Mapping[str, object]) -> Iterator[None]:
    """Every command run inside is logged with these fields, such as operation and step."""
    token = _purpose.set(purpose)
    try:
        yield
    finally:
        _purpose.reset(token)


def masked(text: str, secrets: tuple[str, ...]) -> str:
    """The text with every secret replaced, the longest first, so that one inside another leaves no rest."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def record(
    host: int, command: Ready, gate: GateToken | None, *, outcome: str, status: int | None, seconds: float
) -> None:
    """Log one command as a JSON object: what for, host, command, outcome, status, seconds, and the gate's numbers."""
    if not LOGGER.isEnabledFor(logging.INFO):
        return
    line = shlex.join(masked(word, command.secrets) for word in command.argv)
    fields: dict[str, object] = {
        **_purpose.get(),
        "host": host,
        "command": line[:LINE_LIMIT],
        "outcome": outcome,
        "status": status,
        "seconds": round(seconds, 4),
    }
    if gate is not None:
        fields |= {"volume": gate.volume, "generation": gate.generation, "epoch": gate.epoch, "key": gate.key}
    LOGGER.info("%s", json.dumps(fields, ensure_ascii=False), extra={"command": fields})
