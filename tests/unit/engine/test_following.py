"""A long command says how far it is: shown while it runs, replaced by what it gave."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from openqrm.domain.operation import Counter, Operation, OperationStatus, StepStatus
from openqrm.engine.following import ASK_SECONDS, LONG_SECONDS
from openqrm.plugin_api.steps import Command, Gate, Wait
from openqrm.plugin_api.values import MASK, Secret
from openqrm.testing.things import play, run

if TYPE_CHECKING:
    from openqrm.engine.ports import GateToken
    from openqrm.testing.controller import Site
    from openqrm.testing.fake_host import FakeHosts
    from openqrm.testing.virtual import VirtualLoop

GATE = Gate(volume="volume-7", generation=1)


def tell(hosts: FakeHosts, *said: tuple[int, str] | None) -> list[GateToken]:
    """Let the hosts say these, one an answer, the last one on and on; returns who was asked."""
    asked: list[GateToken] = []

    async def progress(host: int, gate: GateToken) -> tuple[int, str] | None:
        assert host == 1
        asked.append(gate)
        return said[min(len(asked), len(said)) - 1]

    answer: Any = progress
    hosts.progress = answer  # type: ignore[attr-defined]  # which makes it a `Reporting`
    return asked


def test_how_far_it_is_is_shown_while_it_runs() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        asked = tell(hosts, None, (25, "1 of 4 MB are copied"), (50, "with s3cr3t"))
        with site.database.write() as writer:
            writer.put_secret("key", "s3cr3t")
        copy = run("copy", "echo", "done", Secret(key="key"), gate=GATE, timeout=LONG_SECONDS)
        operation = site.enqueue([run("a"), copy])
        hosts.host(1).delay = 4 * ASK_SECONDS
        running = asyncio.ensure_future(site.run())
        seen = set()
        while not running.done():
            await asyncio.sleep(0.5)
            work = site.work(operation.id)
            if work.steps[1].status is StepStatus.ACTING:
                seen.add((work.operation.progress, work.steps[1].output.get("text")))
        await running
        assert {(62, "1 of 4 MB are copied"), (75, f"with {MASK}")} <= seen
        assert {gate.volume for gate in asked} == {"volume-7"}
        work = site.work(operation.id)
        assert (work.operation.status, work.operation.progress) == (OperationStatus.DONE, 100)
        assert work.record("copy").output["stdout"] == f"done {MASK}"
        assert "text" not in work.record("copy").output

    play(story)


def test_short_steps_and_undoing_are_not_asked() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        asked = tell(hosts, (10, "x"))
        short = run("short", "echo", gate=GATE, timeout=LONG_SECONDS - 1)
        undone = run("undone", "echo", undo=Command(argv=("echo",)), timeout=LONG_SECONDS)
        site.enqueue([short, undone, run("fails", "false")])
        hosts.host(1).delay = 2 * ASK_SECONDS
        await site.run()
        assert asked == []

    play(story)


def test_nothing_is_written_for_an_operation_that_another_controller_took() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        async def progress(host: int, gate: GateToken) -> tuple[int, str] | None:
            with site.database.write() as writer:
                writer.update(writer.get(Operation, operation.id), epoch=99)
            return 50, "half"

        answer: Any = progress
        hosts.progress = answer  # type: ignore[attr-defined]  # which makes it a `Reporting`
        operation = site.enqueue([run("copy", "echo", gate=GATE, timeout=LONG_SECONDS)])
        hosts.host(1).delay = 2 * ASK_SECONDS
        task = asyncio.ensure_future(site.run())
        await asyncio.sleep(1.5 * ASK_SECONDS)
        assert site.work(operation.id).steps[0].output == {}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    play(story)


def _copied(seconds: float) -> Wait:
    return Wait(name="copied", condition="thing.far", arguments={"called": "copy"}, timeout=seconds)


async def _seen(site: Site, step: Wait, *, pause: float) -> tuple[list[tuple[int, object]], Operation]:
    """What was shown while the condition got on by 10 % every `pause` seconds."""
    with site.database.write() as writer:
        copy = writer.insert(Counter(name="copy"))
    operation = site.enqueue([run("a"), step])
    running = asyncio.ensure_future(site.run())
    seen: dict[tuple[int, object], None] = {}
    for percent in range(0, 110, 10):
        with site.database.write() as writer:
            writer.update(writer.get(Counter, copy.id), value=percent)
        for _ in range(10):
            await asyncio.sleep(pause / 10)
            work = site.work(operation.id)
            if work.steps[1].status is StepStatus.ACTING:
                seen[work.operation.progress, work.steps[1].output.get("text")] = None
    await running
    work = site.work(operation.id)
    assert work.operation.status is OperationStatus.DONE
    return [one for one in seen if one[1]], work.operation


def test_how_far_a_long_wait_is_is_shown_while_it_waits() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        seen, operation = await _seen(site, _copied(LONG_SECONDS), pause=2 * ASK_SECONDS)
        assert seen == [((100 + 10 * part) // 2, f"{10 * part} MB are copied") for part in range(1, 10)]
        assert operation.progress == 100
        assert site.work(operation.id).record("copied").output == {"text": "100 MB are copied"}

    play(story)


def test_what_changes_all_the_time_is_written_now_and_then() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        seen, _ = await _seen(site, _copied(LONG_SECONDS), pause=ASK_SECONDS / 4)
        assert 2 <= len(seen) <= 4

    play(story)


def test_a_short_wait_shows_nothing() -> None:
    async def story(site: Site, hosts: FakeHosts, loop: VirtualLoop) -> None:
        seen, operation = await _seen(site, _copied(LONG_SECONDS - 1), pause=ASK_SECONDS)
        assert seen == []
        assert site.work(operation.id).record("copied").output == {}

    play(story)
