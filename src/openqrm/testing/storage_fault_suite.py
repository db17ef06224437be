"""What goes wrong around a storage: failed steps, cut connections, killed commands, dying hosts, two callers.

Part of the conformance suites: `PoolFaultSuite` for a pool, `ExportFaultSuite` for a join.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from openqrm.domain.errors import StaleError, UnreachableError
from openqrm.plugin_api.drivers import Cap
from openqrm.testing.storage_attempts import (
    EXPORT_VERBS,
    ONLY_FORWARD,
    POOL_VERBS,
    attempt,
    source_for,
)
from openqrm.testing.storage_cuts import cut_off, dies, in_the_middle, killed

if TYPE_CHECKING:
    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import Client
    from openqrm.testing.storage_attempts import Attempt
    from openqrm.testing.storage_subject import Subject

UNDOABLE = [verb for verb in POOL_VERBS if verb not in ONLY_FORWARD and verb != "resize"]
BACK_SECONDS = 40.0
"""Within this a host that was switched on again serves what it served before."""


class PoolFaultSuite:
    """Inherit and provide the fixture `subject`."""

    @pytest.mark.parametrize("verb", UNDOABLE)
    async def test_undone_after_a_failure_at_each_step(self, subject: Subject, verb: str) -> None:
        """Whether the step that failed did nothing, or all before its answer was lost; and undone twice."""
        source = await source_for(subject, verb)
        number = count = 0
        while number <= count:
            for done in {max(number - 1, 0), number}:
                tried = await attempt(subject, verb, source)
                count = len(tried.steps)
                await subject.runner.do(tried.steps[:done])
                for _ in range(2):
                    await subject.runner.undo([*tried.before, *tried.steps[:number]])
                await tried.is_undone()
            number += 1
        assert count >= 1
        await source.drop(subject)

    @pytest.mark.parametrize("verb", POOL_VERBS)
    async def test_repeated_after_a_failure_at_each_step(self, subject: Subject, verb: str) -> None:
        """Twice is once: what was done already, wholly or up to some step, is done to its end."""
        source = await source_for(subject, verb)
        number = count = 0
        while number <= count:
            tried = await attempt(subject, verb, source)
            count = len(tried.steps)
            await subject.runner.do(tried.steps[:number])
            for _ in range(2):
                await subject.runner.do(tried.steps)
            await tried.is_done()
            await tried.clean()
            number += 1
        assert count >= 1
        await source.drop(subject)

    @pytest.mark.parametrize("verb", POOL_VERBS)
    async def test_killed_in_the_middle(self, subject: Subject, verb: str) -> None:
        """The command dies on the host. Half of it is never shown as a volume; repeated it ends, undone it is gone."""
        source = await source_for(subject, verb)
        await in_the_middle(subject, verb, source, killed, wanted=3)
        await source.drop(subject)

    @pytest.mark.parametrize("verb", POOL_VERBS)
    async def test_unreachable_in_the_middle(self, subject: Subject, verb: str) -> None:
        """The connection is cut while the command runs, and the controller hears no answer."""
        subject.needs("set_host_link")
        source = await source_for(subject, verb)
        await in_the_middle(subject, verb, source, cut_off)
        await source.drop(subject)

    @pytest.mark.parametrize("verb", POOL_VERBS)
    async def test_a_host_that_dies_in_the_middle(self, subject: Subject, verb: str) -> None:
        """Its plug is pulled; afterwards it is on again."""
        subject.needs("crash")
        source = await source_for(subject, verb)
        await in_the_middle(subject, verb, source, dies)
        await source.drop(subject)

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

    async def test_many_callers_make_many_volumes(self, subject: Subject) -> None:
        """Different volumes at once do not get in each other's way."""
        volumes = [subject.volume() for _ in range(6)]
        plans = [await subject.create(volume) for volume in volumes]
        await asyncio.gather(*(subject.runner.do(steps) for steps in plans))
        assert {volume.name for volume in volumes} <= await subject.names()
        removals = [await subject.remove(volume) for volume in volumes]
        await asyncio.gather(*(subject.runner.do(steps) for steps in removals))
        assert not {volume.name for volume in volumes} & await subject.names()

    async def test_a_host_that_does_not_answer(self, subject: Subject) -> None:
        dead = subject.context(subject.dead_host)
        with pytest.raises(UnreachableError):
            await subject.runner.facts(subject.pool.facts(dead))
        steps = subject.pool.create(dead, subject.volume(), await subject.pool_facts())
        with pytest.raises(UnreachableError):
            await subject.runner.do(steps)

    async def test_a_stale_generation_makes_and_removes_nothing(self, subject: Subject) -> None:
        """A controller that was asleep while the volume was leased to others."""
        volume = await subject.made("mine")
        now = volume.model_copy(update={"generation": 5})
        facts = await subject.pool_facts()
        await subject.runner.do(subject.pool.create(subject.context(), now, facts))
        late = subject.other_runner("late", epoch=9)
        with pytest.raises(StaleError):
            await late.do(subject.pool.remove(subject.context(), volume, facts))
        assert await subject.mark(volume) == "mine"
        subject.generations[volume.id] = 5
        await subject.drop(volume)


class ExportFaultSuite:
    """Inherit and provide the fixture `subject`."""

    @pytest.mark.parametrize("verb", ["authorize", "lend"])
    async def test_a_grant_is_undone_after_a_failure_at_each_step(self, subject: Subject, verb: str) -> None:
        source = await source_for(subject, verb)
        number = count = 0
        while number <= count:
            for done in {max(number - 1, 0), number}:
                tried = await attempt(subject, verb, source)
                count = len(tried.steps)
                await subject.runner.do(tried.steps[:done])
                for _ in range(2):
                    await subject.runner.undo(tried.steps[:number])
                await tried.is_undone()
                assert await subject.reads(subject.clients[0], tried.volume) is None
                await subject.drop(tried.volume)
            number += 1
        assert count >= 1
        await source.drop(subject)

    @pytest.mark.parametrize("verb", EXPORT_VERBS)
    async def test_a_grant_repeated_after_a_failure_at_each_step(self, subject: Subject, verb: str) -> None:
        source = await source_for(subject, verb)
        number = count = 0
        while number <= count:
            tried = await attempt(subject, verb, source)
            count = len(tried.steps)
            await subject.runner.do(tried.steps[:number])
            for _ in range(2):
                await subject.runner.do(tried.steps)
            await tried.is_done()
            await tried.clean()
            number += 1
        assert count >= 1
        await source.drop(subject)

    @pytest.mark.parametrize("verb", EXPORT_VERBS)
    async def test_a_grant_while_the_host_is_unreachable(self, subject: Subject, verb: str) -> None:
        subject.needs("set_host_link")
        source = await source_for(subject, verb)
        await in_the_middle(subject, verb, source, cut_off)
        await source.drop(subject)

    @pytest.mark.parametrize("verb", EXPORT_VERBS)
    async def test_a_grant_while_the_host_dies(self, subject: Subject, verb: str) -> None:
        """What was granted before is so afterwards, and nobody has to grant it again."""
        subject.needs("crash")
        subject.require(Cap.AUTHORIZE)
        source = await source_for(subject, verb)
        kept, other = await subject.made("kept"), subject.clients[1]
        await subject.runner.do(await subject.authorize(kept, other, 1))

        async def dies_with_a_grant(tried: Attempt, moment: float) -> bool:
            was_cut = await dies(tried, moment)
            await _is_read(subject, other, kept)
            return was_cut

        await in_the_middle(subject, verb, source, dies_with_a_grant)
        await subject.runner.do(await subject.revoke(kept, other, 1))
        await subject.drop(kept)
        await source.drop(subject)

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
        taken_over = subject.other_runner("taken over", epoch=2)
        await taken_over.do(await subject.authorize(volume, first, 5))
        with pytest.raises(StaleError):
            await subject.runner.do(await subject.revoke(volume, first, 5))
        assert await subject.grants(volume) == before
        assert await subject.reads(first, volume) == "mine"
        await taken_over.do(await subject.revoke(volume, first, 5))
        await taken_over.do(await subject.remove(volume))

    async def test_a_host_of_an_export_that_does_not_answer(self, subject: Subject) -> None:
        with pytest.raises(UnreachableError):
            await subject.runner.facts(subject.export.facts(subject.context(subject.dead_host)))


async def _is_read(subject: Subject, client: Client, volume: Volume) -> None:
    """A client reads what it may read, once the host is up again; nothing was done to it since."""
    seen: str | None = None
    deadline = time.monotonic() + BACK_SECONDS
    while seen != "kept":
        seen = await subject.reads(client, volume)
        assert seen == "kept" or time.monotonic() < deadline, f"after the host died its grant gives {seen}"
