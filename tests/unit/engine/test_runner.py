"""The runner over the real core and journal: order, secrets, files, calls, failures, stops, latency."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.errors import NotFoundError, UnavailableError
from openqrm.domain.event import Severity
from openqrm.domain.operation import Counter, Operation, OperationStatus, StepStatus
from openqrm.plugin_api.steps import Call, Change, Command, Gate, Irreversible, Step, Wait, Write
from openqrm.plugin_api.values import MASK, Output, Secret
from openqrm.testing import virtual
from openqrm.testing.controller import Site
from openqrm.testing.fake_host import FakeHosts, Request
from openqrm.testing.memory import MemoryDatabase
from openqrm.testing.things import CHANGES, CONDITIONS, events, play, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openqrm.plugin_api.calls import CallContext
    from openqrm.testing.virtual import VirtualLoop


def test_outputs_go_to_later_steps() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        asks = run("ask", "echo", '{"path": "/exports/7", "n": 3}', parse="json")
        change = Change(name="change", change="thing.make", arguments={"called": "x"}, undo="thing.unmake")
        uses = run("use", "echo", Output(step="ask", field="path"), Output(step="change", field="id"))
        write = Write(name="write", host=2, path="/f", content=Output(step="ask", field="path"))
        operation = site.enqueue([asks, change, uses, write])
        await site.run()
        work = site.work(operation.id)
        assert work.operation.status is OperationStatus.DONE
        assert work.record("ask").output["path"] == "/exports/7"
        assert work.record("use").output["stdout"] == f"/exports/7 {work.record('change').output['id']}"
        assert hosts.host(2).files["/f"] == ("/exports/7", "0644")
        assert work.operation.result == {"change": {"id": work.record("change").output["id"]}}

    play(story)


def test_an_output_that_was_not_made_fails_at_once_and_is_undone() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        operation = site.enqueue(
            [run("a"), run("b", "echo", Output(step="a", field="uuid"), undo=Command(argv=("true",)))]
        )
        await site.run()
        work = site.work(operation.id)
        assert work.operation.status is OperationStatus.FAILED
        assert work.operation.error is not None
        assert work.operation.error["code"] == "invalid"
        assert work.record("b").attempts == 1
        assert hosts.host(1).things == {}

    play(story)


def test_secrets_are_filled_in_late_and_masked_everywhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        with site.database.write() as writer:
            writer.put_secret("chap", "s3cr3t")
        secret = Secret(key="chap")
        good = run("good", "echo", "pass", secret)
        good = good.model_copy(update={"do": Command(argv=("echo", "pass", secret), input=secret)})
        bad = run("bad", "nosuch", secret, undo=Irreversible(reason="nothing was done"))
        write = Write(name="file", host=1, path="/etc/chap", content=secret, mode="0600")
        operation = site.enqueue([good, write, bad])
        await site.run()
        assert hosts.requests[0].argv == ("echo", "pass", "s3cr3t")
        assert hosts.requests[0].input == "s3cr3t"
        work = site.work(operation.id)
        assert work.record("good").output["stdout"] == f"pass {MASK}{MASK}"
        stored = json.dumps([step.model_dump(mode="json") for step in work.steps])
        stored += json.dumps([event.model_dump(mode="json") for event in events(site)])
        stored += work.operation.model_dump_json()
        assert "s3cr3t" not in stored
        assert MASK in stored

    play(story)
    assert "s3cr3t" not in caplog.text
    assert MASK in caplog.text


def test_a_file_is_restored_and_the_copy_of_the_old_one_is_kept_only_as_a_secret() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        hosts.host(1).files["/etc/x"] = ("old p4ssword", "0600")
        steps: list[Step] = [
            Write(name="change", host=1, path="/etc/x", content="new"),
            Write(name="create", host=1, path="/etc/y", content="new"),
            Write(name="remove", host=1, path="/etc/x", content=None),
            run("fails", "false"),
        ]
        operation = site.enqueue(steps)
        await site.run()
        assert site.status(operation.id) is OperationStatus.FAILED
        assert hosts.host(1).files == {"/etc/x": ("old p4ssword", "0600")}
        assert "p4ssword" not in json.dumps([step.model_dump(mode="json") for step in site.work(operation.id).steps])
        with site.database.read() as reader, pytest.raises(NotFoundError):
            reader.get_secret(f"operation-{operation.id}/change/previous")  # type: ignore[attr-defined]  # the store's

    play(story)


def test_a_failed_command_keeps_its_output_and_can_be_run_again() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        site.enqueue(
            [run("fails", "false", title="Export the volume")],
            name="appliance.start",
            target_kind="appliance",
            target_id=5,
            arguments={"force": True},
            actor="ann",
        )
        await site.run()
        error = next(event for event in events(site) if event.severity is Severity.ERROR)
        assert error.actor == "ann"
        assert error.data["error"]["output"] == "false says no"
        assert error.data["error"]["command"] == ["false"]
        assert error.data["attempts"] == 3
        assert error.data["rerun"] == {
            "operation": "appliance.start",
            "target_kind": "appliance",
            "target_id": 5,
            "arguments": {"force": True},
        }

    play(story)


def test_every_command_is_one_structured_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="openqrm.command")

    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        site.enqueue([run("a"), run("b")], actor="ann")
        await site.run()

    play(story)
    lines = [json.loads(record.message) for record in caplog.records if record.name == "openqrm.command"]
    shown = [(line["step"], line["host"], line["command"], line["status"], line["attempt"]) for line in lines]
    assert shown == [("a", 1, "make a", 0, 1), ("b", 1, "make b", 0, 1)]
    assert {(line["actor"], line["what"]) for line in lines} == {("ann", "act")}


def test_one_at_a_time_per_target_and_in_order_others_at_once() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        hosts.host(1).delay = 10
        for number in range(3):
            site.enqueue([run(f"same-{number}")], targets=["appliance-1"])
            site.enqueue([run(f"other-{number}")], targets=[f"appliance-{number + 2}"])
        await site.run()
        assert loop.time() < 31
        finished = [effect.argv[1] for effect in hosts.effects]
        assert [name for name in dict.fromkeys(finished) if "same" in name] == ["same-0", "same-1", "same-2"]
        assert set(finished[:8]) == {"same-0", "other-0", "other-1", "other-2"}

    play(story)


def test_no_more_than_the_workers_at_once() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        hosts.host(1).delay = 10
        for number in range(7):
            site.enqueue([run(f"s{number}")])
        await site.run(workers=3)
        assert 30 <= loop.time() < 31

    play(story)


async def call_makes(context: CallContext, **arguments: Any) -> dict[str, Any]:
    CALLS.append((context.operation_id, context.step, arguments))
    return {"id": 12, "echo": arguments["word"]}


async def call_undoes(context: CallContext, **arguments: Any) -> dict[str, Any]:
    CALLS.append((context.operation_id, "undo", arguments))
    return {}


async def call_hangs(context: CallContext, **arguments: Any) -> dict[str, Any]:
    await asyncio.sleep(1e6)
    return {}


CALLS: list[tuple[int, str, dict[str, Any]]] = []


def test_calls_get_their_arguments_and_are_undone() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        CALLS.clear()
        with site.database.write() as writer:
            writer.put_secret("key", "s3cr3t")
        here = __name__
        secret = Secret(key="key").model_dump(mode="json")
        own = Output(step="call", field="id").model_dump(mode="json")
        call = Call(
            name="call",
            function=f"{here}:call_makes",
            arguments={"word": secret},
            undo=f"{here}:call_undoes",
            undo_arguments={"made": own},
        )
        slow = Call(name="slow", function=f"{here}:call_hangs", undo=f"{here}:call_undoes", timeout=30)
        operation = site.enqueue([call, slow])
        await site.run()
        assert [
            (operation.id, "call", {"word": "s3cr3t"}),
            (operation.id, "undo", {}),
            (operation.id, "undo", {"made": 12}),
        ] == CALLS
        work = site.work(operation.id)
        assert work.record("call").output == {"id": 12, "echo": MASK}
        assert work.operation.error is not None
        assert work.operation.error["code"] == "timeout"
        assert loop.time() == pytest.approx(95, abs=0.2), "three tries of 30 s and the pauses between"

    play(story)


def test_a_stop_leaves_the_step_in_the_air_for_the_next_controller() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        hosts.host(1).delay = 10
        operation = site.enqueue([run("a", gate=Gate(volume="v", generation=1))])
        runner = site.runner(alone=False)
        await runner.start()
        await asyncio.sleep(2)
        await runner.stop()
        work = site.work(operation.id)
        assert (work.operation.status, work.record("a").status) == (OperationStatus.RUNNING, StepStatus.ACTING)
        await site.run(alone=False)
        assert site.status(operation.id) is OperationStatus.DONE
        keys = {request.gate.key for request in hosts.requests if request.gate}
        assert len(keys) == 1, "the same try has the same key, so that the gate can hand over its result"
        assert loop.time() < 15, "a controller that left need not be waited for"

    play(story)


class FlakyDatabase(MemoryDatabase):
    """Away for a while."""

    away = False

    @contextmanager
    def write(self) -> Iterator[Any]:
        if self.away:
            raise UnavailableError("no space left on device")
        with super().write() as writer:
            yield writer

    @contextmanager
    def read(self) -> Iterator[Any]:
        if self.away:
            raise UnavailableError("no connection")
        with super().read() as reader:
            yield reader


def test_a_database_that_is_away_is_nobodys_failed_try() -> None:
    async def body(loop: VirtualLoop) -> None:
        database, hosts = FlakyDatabase(clock=loop.now), FakeHosts()
        site = Site(database, hosts, CHANGES, CONDITIONS)
        hosts.host(1).delay = 2
        change = Change(name="change", change="thing.make", arguments={"called": "x"}, undo="thing.unmake")
        wait = Wait(name="wait", condition="thing.there", arguments={"called": "x"})
        operation = site.enqueue([run("a"), change, wait, run("b")])
        runner = site.runner()
        await runner.start()
        await asyncio.sleep(1)
        database.away = True
        await asyncio.sleep(300)
        database.away = False
        await site.settle(seconds=20)
        work = site.work(operation.id)
        assert work.operation.status is OperationStatus.DONE
        assert {step.attempts for step in work.steps} == {1}
        assert len(hosts.requests) == 2
        await runner.stop()

    virtual.run(body)


def _note(delays: list[float], began: float, request: Request) -> None:
    delays.append(time.perf_counter() - began)


async def test_from_enqueue_to_the_first_command_without_polling() -> None:
    """On real time, with threads, while the runner is idle and would poll only every 30 s."""
    database, hosts = MemoryDatabase(), FakeHosts()
    site = Site(database, hosts)
    runner = site.runner(threads=4, poll_seconds=30)
    await runner.start()
    await asyncio.sleep(0.1)
    delays: list[float] = []
    for number in range(20):
        began = time.perf_counter()
        hosts.before = functools.partial(_note, delays, began)
        await asyncio.to_thread(site.enqueue, [run(f"s{number}")])
        await site.settle(seconds=10)
    await runner.stop()
    assert len(delays) == 20
    assert sorted(delays)[10] < 0.02, f"median {sorted(delays)[10]:.4f} s"


async def test_many_operations_on_threads_each_act_once() -> None:
    """Writes of several operations share transactions; nothing is lost or done twice."""
    database, hosts = MemoryDatabase(), FakeHosts()
    site = Site(database, hosts, CHANGES, CONDITIONS)
    steps = [
        Change(name="one", change="thing.make", arguments={"called": "x"}, undo="thing.unmake"),
    ]
    for number in range(100):
        change = steps[0].model_copy(update={"arguments": {"called": f"x-{number}"}})
        site.enqueue([run(f"a-{number}"), change, run(f"b-{number}")], targets=[f"t-{number % 30}"])
    await site.run(threads=4, workers=16)
    with database.read() as reader:
        assert reader.count(Operation, status="done") == 100
        assert reader.count(Counter, name__ne="epoch") == 100
    assert len(hosts.requests) == 200
