"""All open streams of this controller: who is connected, orders sent as they are committed, health watched.

Everything runs in one event loop; what blocks goes to threads.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from openqrm.api.node.batches import Batches
from openqrm.domain.errors import OpenqrmError
from openqrm.domain.machine import MachineToken
from openqrm.domain.resource import MachineOrder
from openqrm.operations import deadlines, heartbeats, machine_orders, machines
from openqrm.operations.machine_messages import Done, Log, OrderProgress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from openqrm.api.node.connection import Connection
    from openqrm.api.node.context import ChangedRecords, NodeContext
    from openqrm.domain.states import Deadline
    from openqrm.operations.machine_messages import Message

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
MONITOR_SECONDS = 5.0
POLL_SECONDS = 5.0
"""Orders that another controller issued are found so often; those of this one are sent as they are committed."""
_WANTED = frozenset({MachineOrder.entity.name, MachineToken.entity.name})


class Hub:
    """Owns the streams. `start` and `stop` belong to the application's life."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._connections: dict[int, Connection] = {}
        self.batches = Batches(context.database, context.health, self.writing, self.blocking)
        self._changed: set[tuple[str, int]] = set()
        self._changes = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._since = datetime.now(UTC)
        self._spoken: dict[int, datetime] = {}
        self._limits = heartbeats.Limits.of(context.heartbeat_seconds)

    async def start(self) -> None:
        """Begin to store, send and watch."""
        self._loop = asyncio.get_running_loop()
        self._since = datetime.now(UTC)
        self._unsubscribe = self._context.observed.on_commit(self._committed)
        batches = self.batches
        for work in (batches.store_beats, batches.store_answers, self._send_changes, self._poll, self._monitor):
            self._tasks.append(asyncio.create_task(work(), name=f"node-api {work.__name__}"))

    async def stop(self) -> None:
        """Close all streams and store what is left."""
        self._unsubscribe()
        for connection in list(self._connections.values()):
            connection.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self.batches.flush()

    async def blocking(self, function: Callable[[], T]) -> T:
        """Run a read of the database in a thread of the node API."""
        return await asyncio.get_running_loop().run_in_executor(self._context.readers, function)

    async def writing(self, function: Callable[[], T]) -> T:
        """Run a change of the database, after those that were asked for before."""
        return await asyncio.get_running_loop().run_in_executor(self._context.writer, function)

    @property
    def tasks(self) -> Sequence[asyncio.Task[None]]:
        """What must go on for ever between `start` and `stop`."""
        return tuple(self._tasks)

    @property
    def connected(self) -> int:
        """How many machines have a stream."""
        return len(self._connections)

    async def join(self, connection: Connection) -> None:
        """A machine connected: an older stream of it ends, and what it has to do is sent."""
        session = connection.session
        older = self._connections.get(session.resource_id)
        self._connections[session.resource_id] = connection
        self.spoke(session.resource_id)
        if older is not None:
            older.close()
        connection.put(f"hello {self._context.heartbeat_seconds}\n".encode())

        def read() -> tuple[Sequence[MachineOrder], bool]:
            with self._context.database.read() as reader:
                orders = machine_orders.pending(reader, session.resource_id, session.boot_id)
                return orders, machines.misjudged(reader, session)

        def set_right() -> None:
            with self._context.database.write() as writer:
                machines.set_right(writer, session)

        try:
            orders, misjudged = await self.blocking(read)
            _send(connection, orders)
            if misjudged:
                await self.writing(set_right)
        except OpenqrmError as error:
            _LOG.warning("orders of resource %d are sent later: %s", session.resource_id, error)

    def spoke(self, resource_id: int) -> None:
        """A machine registered or connected: it is heard, although its first heartbeat is still to come."""
        self._spoken[resource_id] = datetime.now(UTC)

    def leave(self, connection: Connection) -> None:
        """A stream ended."""
        connection.close()
        if self._connections.get(connection.session.resource_id) is connection:
            del self._connections[connection.session.resource_id]

    def drop(self, resource_id: int) -> None:
        """End a machine's stream."""
        connection = self._connections.pop(resource_id, None)
        if connection is not None:
            connection.close()

    def received(self, connection: Connection, message: Message, at: float) -> None:
        """A machine said something; `at` is monotonic seconds."""
        connection.last_heard = at
        connection.heard.set()
        if isinstance(message, Log | OrderProgress) and not connection.may_log(at):
            return
        if not self.batches.add(connection.session, message) and isinstance(message, Done):
            _LOG.warning("resource %d must say again what it did", connection.session.resource_id)
            self.leave(connection)  # its orders are sent anew at the next stream, and it answers them as before

    def alive(self, resource_id: int) -> bool:
        """Whether a machine is connected and was heard so recently that it must be taken for alive."""
        connection = self._connections.get(resource_id)
        if connection is None or connection.closed:
            return False
        return connection.patience(self._context.heartbeat_seconds) > 0

    async def heard_again(self, resource_id: int) -> bool:
        """Wait until the connected machine speaks again (True) or has been silent for longer than it may (False)."""
        connection = self._connections.get(resource_id)
        if connection is None:
            return False
        connection.heard.clear()
        connection.put(b"ping\n")
        while not connection.closed and (patience := connection.patience(self._context.heartbeat_seconds)) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await connection.heard.wait()
                    return not connection.closed
        return False

    def _committed(self, commit: ChangedRecords) -> None:
        """In the writing thread, after every commit."""
        relevant = {one for one in commit.touched if one[0] in _WANTED}
        if relevant and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._note, relevant)

    def _note(self, relevant: set[tuple[str, int]]) -> None:
        self._changed |= relevant
        self._changes.set()

    async def _send_changes(self) -> None:
        while True:
            await self._changes.wait()
            self._changes.clear()
            changed, self._changed = self._changed, set()
            await self._quietly(partial(self._look, changed))

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self._quietly(self._look_for_others)

    async def _look(self, changed: set[tuple[str, int]]) -> None:
        """Send new orders, and end streams whose session is void: a new boot registered, or the resource is gone."""
        mine = {one.session.token_id: one for one in self._connections.values()}
        orders = [number for kind, number in changed if kind == MachineOrder.entity.name]
        tokens = [number for kind, number in changed if kind == MachineToken.entity.name and number in mine]

        def read() -> tuple[Sequence[MachineOrder], Sequence[MachineToken]]:
            with self._context.database.read() as reader:
                fresh = reader.find(MachineOrder, id__in=orders, state="open") if orders else ()
                return fresh, reader.find(MachineToken, id__in=tokens) if tokens else ()

        if not orders and not tokens:
            return
        fresh, valid = await self.blocking(read)
        still = {row.id: row for row in valid}
        for number in tokens:
            session, row = mine[number].session, still.get(number)
            if row is None or (row.boot_id, row.stage) != (session.boot_id, session.stage):
                self.leave(mine[number])
        self._deliver(fresh)

    async def _look_for_others(self) -> None:
        def read() -> Sequence[MachineOrder]:
            with self._context.database.read() as reader:
                return reader.find(MachineOrder, state="open")

        if self._connections:
            self._deliver(await self.blocking(read))

    def _deliver(self, orders: Sequence[MachineOrder]) -> None:
        for order in orders:
            connection = self._connections.get(order.resource_id)
            if connection is not None and order.boot_id in ("", connection.session.boot_id):
                _send(connection, [order])

    async def _monitor(self) -> None:
        while True:
            await asyncio.sleep(MONITOR_SECONDS)
            await self._quietly(self._watch)

    async def _watch(self) -> None:
        now = datetime.now(UTC)
        recent = timedelta(seconds=self._limits.lost)
        self._spoken = {number: at for number, at in self._spoken.items() if now - at < recent}
        spoken = dict(self._spoken)
        health, late = await self.blocking(lambda: self._judge(now, spoken))
        if health or late:
            await self.writing(lambda: self._apply(health, late))

    def _judge(
        self, now: datetime, spoken: dict[int, datetime]
    ) -> tuple[Sequence[heartbeats.Verdict], Sequence[tuple[heartbeats.Watched, Deadline]]]:
        seen = heartbeats.newest(self._context.health.last_seen(), spoken)
        phases = {*heartbeats.WATCHED, *deadlines.TRANSIENT}
        with self._context.database.read() as reader:
            watched = heartbeats.watched(reader, phases)
        return heartbeats.verdicts(watched, seen, self._since, now, self._limits), deadlines.overdue(watched, now)

    def _apply(self, health: Sequence[heartbeats.Verdict], late: Sequence[tuple[heartbeats.Watched, Deadline]]) -> None:
        with self._context.database.write() as writer:
            heartbeats.apply(writer, health)
            deadlines.apply(writer, late)

    async def _quietly(self, work: Callable[[], Awaitable[None]]) -> None:
        """A database that is away ends none of our loops, and a bug ends none in silence."""
        try:
            await work()
        except OpenqrmError as error:
            _LOG.warning("the node API goes on later: %s", error)
        except Exception:  # noqa: BLE001  # the loop goes on
            _LOG.exception("the node API met a bug and goes on")


def _send(connection: Connection, orders: Sequence[MachineOrder]) -> None:
    for order in orders:
        connection.put(f"order {order.id} {order.verb}\n".encode())
