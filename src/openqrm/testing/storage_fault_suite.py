"""What goes wrong around a storage: failed steps, two callers, a host that is away, a controller that is late.

Part of the conformance suites: `PoolFaultSuite` for a pool, `ExportFaultSuite` for a join.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from openqrm.domain.errors import StaleError, UnreachableError
from openqrm.plugin_api.drivers import Cap

if TYPE_CHECKING:
    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.steps import Steps
    from openqrm.testing.storage_subject import Subject


class PoolFaultSuite:
    """Inherit and provide the fixture `subject`."""

    @pytest.mark.parametrize("verb", ["create", "clone", "fill", "snapshot"])
    async def test_undone_after_a_failure_at_each_step(self, subject: Subject, verb: str) -> None:
        """Whether the step that failed did nothing, or all before its answer was lost; and undone twice."""
        capability = {"clone": Cap.CLONE, "fill": Cap.FILL, "snapshot": Cap.SNAPSHOT}.get(verb)
        if capability is not None:
            subject.require(capability)
        source = await subject.made("source")
        archive = await subject.content.archive("echo hello >file")
        number, steps = 0, await _made_by(subject, verb, source, subject.volume(), archive)
        assert steps
        while number <= len(steps):
            for done in {max(number - 1, 0), number}:
                before = await subject.names(), await subject.leftovers()
                volume = subject.volume()
                steps = await _made_by(subject, verb, source, volume, archive)
                await subject.runner.do(steps[:done])
                for _ in range(2):
                    await subject.runner.undo(steps[:number])
                assert (await subject.names(), await subject.leftovers()) == before
            number += 1
        assert await subject.mark(source) == "source"
        await subject.drop(source)

    async def test_two_callers_make_one_volume(self, subject: Subject) -> None:
        """The same call at once ends as one."""
        volume = subject.volume()
        other = subject.other_runner("other")
        steps = await subject.create(volume)
        await asyncio.gather(*(runner.do(steps) for runner in (subject.runner, other) for _ in range(3)))
        assert volume.name in await subject.names()
        removal = await subject.remove(volume)
        await asyncio.gather(subject.runner.do(removal), other.do(removal))
        assert volume.name not in await subject.names()

    async def test_a_host_that_does_not_answer(self, subject: Subject) -> None:
        dead = subject.context(subject.dead_host)
        with pytest.raises(UnreachableError):
            await subject.runner.facts(subject.pool.facts(dead))
        alive = await subject.pool_facts()
        steps = subject.pool.create(dead, subject.volume(), alive)
        with pytest.raises(UnreachableError):
            await subject.runner.do(steps)


class ExportFaultSuite:
    """Inherit and provide the fixture `subject`."""

    async def test_a_grant_is_undone_after_a_failure_at_each_step(self, subject: Subject) -> None:
        subject.require(Cap.AUTHORIZE)
        volume, client = await subject.made("mine"), subject.clients[0]
        number, generation, steps = 0, 0, await subject.authorize(volume, client, 0)
        assert steps
        while number <= len(steps):
            for done in {max(number - 1, 0), number}:
                generation += 1
                steps = await subject.authorize(volume, client, generation)
                await subject.runner.do(steps[:done])
                for _ in range(2):
                    await subject.runner.undo(steps[:number])
                assert await subject.grants(volume) == []
                assert await subject.reads(client, volume) is None
            number += 1
        await subject.drop(volume)

    async def test_two_callers_make_one_grant(self, subject: Subject) -> None:
        subject.require(Cap.AUTHORIZE)
        volume, other = await subject.made("mine"), subject.other_runner("other")
        grants = [await subject.authorize(volume, client, 1) for client in subject.clients[:2]]
        await asyncio.gather(subject.runner.do(grants[0]), other.do(grants[1]), subject.runner.do(grants[0]))
        assert len(await subject.grants(volume)) == 1
        readers = [await subject.reads(client, volume) for client in subject.clients[:2]]
        assert sorted(str(text) for text in readers) == ["None", "mine"]
        await subject.runner.do(await subject.revoke(volume, subject.clients[0], 1))
        assert await subject.grants(volume) == []
        await subject.drop(volume)

    async def test_a_stale_generation_changes_nothing(self, subject: Subject) -> None:
        subject.require(Cap.AUTHORIZE)
        volume = await subject.made("mine")
        first, second = subject.clients[:2]
        late_grant = await subject.authorize(volume, second, 4)
        await subject.runner.do(await subject.authorize(volume, first, 5))
        before = await subject.grants(volume)
        late = subject.other_runner("late", epoch=9)
        for steps in (
            late_grant,
            await subject.revoke(volume, first, 4),
            subject.pool.remove(subject.context(), volume, await subject.pool_facts()),
        ):
            with pytest.raises(StaleError):
                await late.do(steps)
        again = await subject.authorize(volume, first, 5)
        taken_over = subject.other_runner("taken over", epoch=2)
        await taken_over.do(again)
        with pytest.raises(StaleError):
            await subject.runner.do(await subject.revoke(volume, first, 5))
        assert await subject.grants(volume) == before
        assert await subject.reads(first, volume) == "mine"
        await taken_over.do(await subject.revoke(volume, first, 5))
        await taken_over.do(await subject.remove(volume))

    async def test_a_host_of_an_export_that_does_not_answer(self, subject: Subject) -> None:
        with pytest.raises(UnreachableError):
            await subject.runner.facts(subject.export.facts(subject.context(subject.dead_host)))


async def _made_by(subject: Subject, verb: str, source: Volume, volume: Volume, archive: str) -> Steps:
    match verb:
        case "create":
            return await subject.create(volume)
        case "clone":
            return await subject.clone(source, volume)
        case "snapshot":
            return await subject.snapshot(source, volume)
    return (*await subject.create(volume), *await subject.fill(volume, archive))
