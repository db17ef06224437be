"""Loops that must go on: whatever a store, a plug-in or a machine does, none ends in silence."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from openqrm.api.node import batches, hub
from openqrm.api.node.batches import Batches
from openqrm.api.node.connection import Connection
from openqrm.api.node.context import NodeContext
from openqrm.api.node.hub import Hub
from openqrm.domain.machine import Stage
from openqrm.domain.resource import MachineOrder
from openqrm.operations import machine_orders
from openqrm.operations.machine_messages import Ack, Beat, Done, Message, OrderProgress
from openqrm.operations.machine_tokens import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from tests.unit.machines.conftest import World

BOOT = "00000000-a"


class BrokenHealth:
    """Heartbeats whose store has a bug."""

    def record(self, beats: Any, at: Any) -> None:
        raise RuntimeError("a bug")

    def last_seen(self) -> Any:
        raise RuntimeError("a bug")


class Unobserved:
    """A database nobody hears of."""

    def on_commit(self, callback: Any) -> Callable[[], None]:
        return lambda: None


def context(world: World) -> NodeContext:
    values: dict[str, Any] = dict.fromkeys(("drivers", "hooks", "files", "enrol", "digest", "secret"))
    values |= {"api_url": "", "boot_url": "", "authorized_key": ""}
    return NodeContext(database=world.database, observed=Unobserved(), health=BrokenHealth(), **values)


async def inline(work: Callable[[], None]) -> None:
    work()


def machine(world: World) -> Session:
    return Session(1, world.register(BOOT).resource.id, BOOT, Stage.INITRAMFS, 0)


def test_a_bug_in_the_health_store_does_not_end_the_watch(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hub, "MONITOR_SECONDS", 0.01)
    monkeypatch.setattr(batches, "BEATS_SECONDS", 0.01)
    session = machine(world)

    async def body() -> None:
        one = Hub(context(world))
        await one.start()
        one.received(Connection(session), Beat(uptime=1), 0.0)
        await asyncio.sleep(0.2)
        assert [task.get_name() for task in one.tasks if task.done()] == []
        assert len(one.tasks) == 5
        await one.stop()

    with caplog.at_level(logging.ERROR):
        asyncio.run(body())
    assert "the node API met a bug and goes on" in caplog.text
    assert "heartbeats met a bug" in caplog.text


def test_an_answer_that_meets_a_bug_harms_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    session = machine(world)
    order = world.order(session.resource_id, "inventory")
    real = machine_orders.answered

    def answered(writer: Any, session: Session, message: Any) -> None:
        if isinstance(message, Ack):
            raise RuntimeError("a bug")  # noqa: TRY004  # nothing about types
        real(writer, session, message)

    monkeypatch.setattr(machine_orders, "answered", answered)
    one = Batches(world.database, BrokenHealth(), inline)
    one.add(session, Ack(order.id))
    one.add(session, Done(order.id, 0, "sent"))
    asyncio.run(one.flush())
    with world.database.read() as reader:
        assert reader.get(MachineOrder, order.id).state == "done"


def test_the_result_of_an_order_is_never_dropped_in_silence(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_MAX_ANSWERS", 2)
    monkeypatch.setattr(batches, "_MAX_RESULTS", 1)
    session = machine(world)

    async def body() -> None:
        one = Hub(context(world))
        connection = Connection(session)
        for number in range(3):
            one.received(connection, Ack(number), 0.0)
        one.received(connection, Done(1, 0, ""), 0.0)
        assert not connection.closed
        one.received(connection, Done(2, 0, ""), 0.0)
        assert connection.closed, "it says it again after its next connection"

    asyncio.run(body())


def test_progress_is_limited_as_the_log_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    session = machine(world)
    order = world.order(session.resource_id, "deploy")

    async def body() -> int:
        one = Hub(context(world))
        connection = Connection(session, logged_at=0.0)
        taken: list[Message] = []

        def add(session: Session, message: Message) -> bool:
            del session
            taken.append(message)
            return True

        monkeypatch.setattr(one.batches, "add", add)
        for number in range(500):
            one.received(connection, OrderProgress(order.id, 1, str(number)), 0.0)
        return len(taken)

    assert asyncio.run(body()) == 50
