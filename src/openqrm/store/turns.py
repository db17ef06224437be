"""Whose turn it is to write: in the order in which it was asked for.

A pool of one connection wakes its waiters in no order. Measured with eight threads that write all the time: three of
them did all the work, the others got one turn in eight seconds.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from openqrm.domain.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Turns:
    """A lock that is handed on to whoever has waited longest."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    @contextmanager
    def turn(self, seconds: float) -> Iterator[None]:
        """Wait for our turn and have it; UnavailableError after `seconds`."""
        self._wait(seconds)
        try:
            yield
        finally:
            with self._guard:
                if self._waiting:
                    self._waiting.popleft().release()
                else:
                    self._taken = False

    def _wait(self, seconds: float) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        if mine.acquire(timeout=seconds):
            return
        with self._guard:
            if mine not in self._waiting:
                return  # it was handed to us in the last moment
            self._waiting.remove(mine)
        raise UnavailableError(f"the database was busy for {seconds:g} seconds", remedy="try again later")
