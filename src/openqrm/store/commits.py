"""What a transaction changed, and who wants to know: the event stream, the engine's wake-up, caches."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from openqrm.domain.event import Event

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Commit:
    """(entity name, id) of each record that was made, changed or removed, and the events logged, in order."""

    touched: frozenset[tuple[str, int]]
    events: tuple[Event, ...]


class Listeners:
    """Who is called after commits, in the thread that committed."""

    def __init__(self) -> None:
        self._callbacks: tuple[Callable[[Commit], None], ...] = ()
        self._guard = threading.Lock()

    def add(self, callback: Callable[[Commit], None]) -> Callable[[], None]:
        """Call back from now on; returns how to stop it."""
        with self._guard:
            self._callbacks = (*self._callbacks, callback)

        def stop() -> None:
            with self._guard:
                self._callbacks = tuple(one for one in self._callbacks if one is not callback)

        return stop

    def announce(self, commit: Commit) -> None:
        """Tell everyone. The commit is done: one listener's failure is logged and hides nothing from the others."""
        if not commit.touched:
            return
        for callback in self._callbacks:
            try:
                callback(commit)
            except Exception:
                log.exception("a listener failed after a commit")
