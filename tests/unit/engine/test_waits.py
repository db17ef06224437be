"""The runner over the real core and journal: waits, cancels, attention, admissions that are waited for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from openqrm.domain.errors import ConflictError
from openqrm.domain.operation import Counter, Operation, OperationStatus
from openqrm.domain.user import User
from openqrm.engine import requests
from openqrm.plugin_api.steps import Change, Command, Irreversible, Step, Wait
from openqrm.testing.fake_host import FakeHosts, Fault, Request
from openqrm.testing.things import add, count, play, run

if TYPE_CHECKING:
    from openqrm.testing.controller import Site
    from openqrm.testing.virtual import VirtualLoop


def test_a_wait_ends_when_its_condition_holds_and_has_an_output() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        def arrive() -> None:
            with site.database.write() as writer:
                writer.insert(User(name="ann"))

        loop.call_later(7, arrive)
        operation = site.enqueue([Wait(name="wait", condition="user.known", arguments={"called": "ann"}, timeout=60)])
        await site.run(ports={"poll_seconds": 1000})
        assert site.work(operation.id).record("wait").output["id"]
        assert 7 <= loop.time() < 7.1

    play(story)


@pytest.mark.parametrize(("blocker", "detail"), [("x", "not within 60 s: still waiting"), ("never", "no longer")])
def test_a_condition_that_does_not_come_true_is_not_waited_for_again(blocker: str, detail: str) -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        loop.call_later(5, add, site.database, blocker)
        wait = Wait(name="wait", condition="thing.there", arguments={"called": "signal"}, timeout=60)
        operation = site.enqueue([run("a"), wait])
        await site.run()
        work = site.work(operation.id)
        assert work.operation.status is OperationStatus.FAILED
        assert work.operation.error is not None
        assert detail in work.operation.error["detail"]
        assert work.record("wait").attempts == 1
        assert loop.time() < 61
        assert hosts.host(1).things == {}

    play(story)


def test_an_undo_waits_for_its_condition_before_what_came_before_is_undone() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        add(site.database, "in-use")
        wait = Wait(
            name="wait",
            condition="thing.there",
            undo_condition="thing.gone",
            arguments={"called": "in-use"},
            timeout=20,
            undo_timeout=60,
        )
        operation = site.enqueue([run("a"), wait, run("fails", "false")])

        def release() -> None:
            assert "a" in hosts.host(1).things
            with site.database.write() as writer:
                found = writer.one(Counter, name="in-use")
                assert found is not None
                writer.delete(Counter, found.id)

        loop.call_later(30, release)
        await site.run()
        assert site.status(operation.id) is OperationStatus.FAILED
        assert hosts.host(1).things == {}
        assert 30 <= loop.time() < 40

    play(story)


def test_cancel_interrupts_a_wait_and_undoes() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        wait = Wait(name="wait", condition="thing.there", arguments={"called": "signal"}, timeout=600)
        operation = site.enqueue([run("a"), wait])
        behind = site.enqueue([run("b")])

        def cancel() -> None:
            with site.database.write() as writer:
                requests.cancel(writer, operation.id)

        loop.call_later(3, cancel)
        await site.run()
        assert site.status(operation.id) is OperationStatus.FAILED
        assert hosts.host(1).things == {"b": "whole"}
        assert site.status(behind.id) is OperationStatus.DONE
        assert loop.time() < 5
        with site.database.write() as writer, pytest.raises(ConflictError):
            requests.cancel(writer, operation.id)

    play(story)


def test_a_queued_operation_that_is_cancelled_gives_back_what_its_admission_took() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        lease = Change(name="lease", change="thing.make", arguments={"called": "lease"}, undo="thing.unmake")
        operation = site.enqueue([lease, run("a")])
        assert count(site.database, "lease") == 1
        with site.database.write() as writer:
            requests.cancel(writer, operation.id)
        await site.run()
        assert count(site.database, "lease") == 0
        assert hosts.requests == []
        assert site.status(operation.id) is OperationStatus.FAILED

    play(story)


def test_attention_resume_and_abandon() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        def broken(request: Request) -> Fault | None:
            return Fault.STATUS if request.argv[0] in ("unmake", "false") else None

        hosts.faults = broken
        first = site.enqueue([run("a"), run("b"), run("fails", "false", undo=Command(argv=("true",)))], targets=["x-1"])
        second = site.enqueue([run("c"), run("fails", "false", undo=Command(argv=("true",)))], targets=["x-1"])
        runner = site.runner()
        await runner.start()
        await asyncio.sleep(60)
        assert site.status(first.id) is OperationStatus.ATTENTION
        assert site.status(second.id) is OperationStatus.QUEUED, "it waits behind the one that needs attention"
        hosts.faults = lambda request: None
        with site.database.write() as writer:
            requests.resume(writer, first.id)
        await asyncio.sleep(5)
        hosts.faults = broken
        await asyncio.sleep(60)
        assert site.status(first.id) is OperationStatus.FAILED
        assert site.status(second.id) is OperationStatus.ATTENTION
        with site.database.write() as writer:
            requests.abandon(writer, second.id)
        third = site.enqueue([run("d")], targets=["x-1"])
        await site.settle()
        assert site.status(second.id) is OperationStatus.ABANDONED
        assert site.status(third.id) is OperationStatus.DONE
        assert hosts.host(1).things == {"c": "whole", "d": "whole"}
        await runner.stop()

    play(story)


def test_an_admission_left_to_the_engine_waits_until_the_conflict_is_gone() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        add(site.database, "busy")
        steps: list[Step] = [Change(name="take", change="thing.take", undo=Irreversible(reason="x")), run("a")]
        with site.database.write() as writer:
            operation = site.journal.enqueue(writer, Operation(name="test.run"), steps, ())
        runner = site.runner()
        await runner.start()
        await asyncio.sleep(100)
        waiting = site.work(operation.id)
        assert waiting.operation.status is OperationStatus.QUEUED
        assert waiting.operation.owner is None
        with site.database.write() as writer:
            found = writer.one(Counter, name="busy")
            assert found is not None
            writer.delete(Counter, found.id)
        await site.settle(seconds=20)
        assert site.status(operation.id) is OperationStatus.DONE
        await runner.stop()

    play(story)
