"""What machines say, gathered and stored together: heartbeats beside the database, answers to orders in it."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from openqrm.domain.errors import OpenqrmError
from openqrm.operations import machine_orders
from openqrm.operations.machine_messages import Beat, Done

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from openqrm.engine.ports import Database
    from openqrm.operations.heartbeats import HealthSink
    from openqrm.operations.machine_messages import Message
    from openqrm.operations.machine_tokens import Session

    Blocking = Callable[[Callable[[], None]], Awaitable[None]]

_LOG = logging.getLogger(__name__)
BEATS_SECONDS = 0.5
"""Heartbeats wait so long for company before they are stored."""
ANSWERS_SECONDS = 0.02
"""Answers to orders wait only for those that come at the same moment: an operation waits for them."""
_AWAY_SECONDS = 1.0
_MAX_ANSWERS = 10_000
"""Answers kept while the database is away. Machines repeat what they have done after a reconnect."""


_MAX_RESULTS = 10_000
"""Results of orders kept beyond that."""


class Batches:
    """Lives in one event loop; `blocking` runs a function in a thread, `aside` one that need not wait its turn.

    Heartbeats are stored aside: behind a change of thousands of machines they would come so late that more machines
    were taken for lost.
    """

    def __init__(
        self, database: Database, health: HealthSink, blocking: Blocking, aside: Blocking | None = None
    ) -> None:
        self._database = database
        self._health = health
        self._blocking = blocking
        self._aside = aside or blocking
        self._beats: dict[int, Beat] = {}
        self._answers: list[tuple[Session, Message]] = []
        self._answered = asyncio.Event()
        self.stored = 0
        """Heartbeats stored so far."""

    def add(self, session: Session, message: Message) -> bool:
        """Take a message; of several heartbeats of one machine the newest is kept. False when there is no room: then
        what an order came to must be said again, and anything else may be missed."""
        if isinstance(message, Beat):
            self._beats[session.resource_id] = message
        elif len(self._answers) < _MAX_ANSWERS + (_MAX_RESULTS if isinstance(message, Done) else 0):
            self._answers.append((session, message))
            self._answered.set()
        else:
            return False
        return True

    async def store_beats(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(BEATS_SECONDS)
            await self._flush_beats()

    async def store_answers(self) -> None:
        """For ever."""
        while True:
            await self._answered.wait()
            await asyncio.sleep(ANSWERS_SECONDS)
            if not await self._flush_answers():
                await asyncio.sleep(_AWAY_SECONDS)

    async def flush(self) -> None:
        """Store what is left."""
        await self._flush_beats()
        await self._flush_answers()

    async def _flush_beats(self) -> None:
        if not self._beats:
            return
        beats, self._beats = self._beats, {}
        at = datetime.now(UTC)
        try:
            await self._aside(lambda: self._health.record(beats, at))
            self.stored += len(beats)
        except OpenqrmError as error:
            _LOG.warning("%d heartbeats could not be stored: %s", len(beats), error)
        except Exception:  # noqa: BLE001  # the loop goes on
            _LOG.exception("%d heartbeats met a bug and are lost", len(beats))

    async def _flush_answers(self) -> bool:
        """False while the database is away; the answers are kept for another try."""
        self._answered.clear()
        if not self._answers:
            return True
        answers, self._answers = self._answers, []
        try:
            await self._blocking(lambda: self._write(answers))
        except Exception as error:  # noqa: BLE001  # whatever it is, the answers are kept and the loop goes on
            _LOG.warning("%d answers of machines could not be stored yet: %s", len(answers), error)
            self._answers = answers + self._answers
            self._answered.set()
            return False
        return True

    def _write(self, answers: list[tuple[Session, Message]]) -> None:
        """All in one transaction; if one of them cannot be applied, each in its own, so that it harms no other."""
        try:
            self._transaction(answers)
        except Exception as error:
            if isinstance(error, OpenqrmError) and error.status == 503:
                raise
            for one in answers:
                self._single(one)

    def _single(self, answer: tuple[Session, Message]) -> None:
        try:
            self._transaction([answer])
        except OpenqrmError as error:
            if error.status == 503:
                raise
            _LOG.warning("resource %d: %s could not be applied: %s", answer[0].resource_id, answer[1], error)
        except Exception:  # noqa: BLE001  # one machine's words must not hold up all others
            _LOG.exception("resource %d: %s met a bug and is left out", answer[0].resource_id, answer[1])

    def _transaction(self, answers: list[tuple[Session, Message]]) -> None:
        with self._database.write() as writer:
            for session, message in answers:
                machine_orders.answered(writer, session, message)
