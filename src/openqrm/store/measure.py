"""How many statements a call sends to the database and how long they take, for `Server-Timing` and for tests.

Who wants to know opens `counting()`; a thread that is started with a copy of the context counts into the same place.
Without it nothing is counted.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class Statements:
    """What one call has sent so far. `seconds` ends when the first rows are there; fetching more is not in it."""

    count: int = 0
    seconds: float = 0.0
    began: float = 0.0


_CURRENT: ContextVar[Statements | None] = ContextVar("statements", default=None)


@contextmanager
def counting() -> Iterator[Statements]:
    """Count the statements that are sent in this block."""
    statements = Statements()
    token = _CURRENT.set(statements)
    try:
        yield statements
    finally:
        _CURRENT.reset(token)


def watch(engine: Engine) -> None:
    """Let an engine's statements be counted; `BEGIN` and locks that we send ourselves are statements too."""

    @event.listens_for(engine, "before_cursor_execute")
    def before(*about: Any) -> None:
        del about
        statements = _CURRENT.get()
        if statements is not None:
            statements.count += 1
            statements.began = time.perf_counter()

    @event.listens_for(engine, "after_cursor_execute")
    def after(*about: Any) -> None:
        del about
        statements = _CURRENT.get()
        if statements is not None:
            statements.seconds += time.perf_counter() - statements.began
