"""The conformance suite of storage types: a pool joined with an export, on a real host.

A plug-in's test inherits from `StorageSuite` and provides the fixture `subject`. What runs is decided by the declared
capabilities: a declared one cannot skip its tests, an undeclared one has none.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from openqrm.domain.errors import CommandFailedError, OpenqrmError, StaleError, UnreachableError
from openqrm.plugin_api.drivers import Cap, Client, confirmed
from openqrm.testing.steps import StepRunner

if TYPE_CHECKING:
    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.steps import Steps
    from openqrm.testing.storage_subject import Subject

WATCHED_SECONDS = 5.0
"""How long a revoked client's volume is watched."""


class StorageSuite:
    """Inherit and provide the fixture `subject`."""

    async def test_a_volume_is_made_and_removed(self, subject: Subject) -> None:
        volume = subject.volume()
        for _ in range(2):
            await subject.runner.do(await subject.create(volume))
        assert await subject.shell('ls -A "$1"', subject.pool.location(subject.context(), volume)) == ""
        assert volume.name in await subject.names()
        for _ in range(2):
            await subject.runner.do(await subject.remove(volume))
        assert volume.name not in await subject.names()

    async def test_what_was_there_before_is_not_touched(self, subject: Subject) -> None:
        """A volume of the same name that somebody else made: refused, and the undo leaves it alone."""
        there = await subject.made("theirs")
        ours = subject.volume().model_copy(update={"name": there.name})
        steps = await subject.create(ours)
        with pytest.raises(CommandFailedError):
            await subject.runner.do(steps)
        await subject.runner.undo(steps)
        assert await subject.shell('cat "$1/mark"', subject.pool.location(subject.context(), there)) == "theirs"
        await subject.runner.do(await subject.remove(there))

    async def test_a_clone_is_a_copy_of_its_own(self, subject: Subject) -> None:
        subject.require(Cap.CLONE)
        source, copy = await subject.made("one"), subject.volume()
        place = subject.pool.location(subject.context(), copy)
        script = (
            'cd "$1"; mkfifo pipe; ln -s nowhere link; ln mark hard; chown 1234:4321 mark; chmod 4711 mark;'
            " mkdir -m 1777 tmp"
        )
        await subject.shell(script, subject.pool.location(subject.context(), source))
        for _ in range(2):
            await subject.runner.do(await subject.clone(source, copy))
        look = (
            'cd "$1"; find . | sort | while read -r name; do stat -c "%n %a %u:%g %h %F" "$name"; done; readlink link'
        )
        kept = [await subject.shell(look, subject.pool.location(subject.context(), each)) for each in (source, copy)]
        assert kept[0] == kept[1]
        await subject.shell('echo two >"$1/mark"', place)
        assert await subject.shell('cat "$1/mark"', subject.pool.location(subject.context(), source)) == "one"
        for volume in (source, copy):
            await subject.runner.do(await subject.remove(volume))

    async def test_a_clone_shares_what_is_not_changed(self, subject: Subject) -> None:
        subject.require(Cap.CLONE_COW)
        if not confirmed(subject.pool, Cap.CLONE_COW, subject.context(), await subject.pool_facts()):
            pytest.skip("this host's file system cannot share blocks, and the driver says so")
        source, copy = await subject.made(), subject.volume()
        await subject.shell(
            'head -c 200000000 /dev/urandom >"$1/big"; sync', subject.pool.location(subject.context(), source)
        )
        used = 'sync; df -kP "$1" | awk "NR == 2 { print \\$3 }"'
        where = subject.pool.location(subject.context(), source)
        before, began = int(await subject.shell(used, where)), time.monotonic()
        await subject.runner.do(await subject.clone(source, copy))
        spent = time.monotonic() - began
        assert int(await subject.shell(used, where)) - before < 50_000
        assert spent < 5
        for volume in (source, copy):
            await subject.runner.do(await subject.remove(volume))

    async def test_an_archive_is_unpacked_whole(self, subject: Subject) -> None:
        subject.require(Cap.FILL)
        archive = await subject.shell(
            'd=$(mktemp -d); cd "$d"; mkdir t; echo hi >t/f; chown 77:88 t/f; chmod 2755 t/f; ln -s f t/l;'
            ' tar -czf a.tgz -C t .; echo "$d/a.tgz"'
        )
        volume = subject.volume()
        await subject.runner.do(await subject.create(volume))
        for _ in range(2):
            await subject.runner.do(await subject.fill(volume, archive.strip()))
        look = 'cd "$1"; stat -c "%a %u:%g" f; readlink l; cat f'
        assert await subject.shell(look, subject.pool.location(subject.context(), volume)) == "2755 77:88\nf\nhi\n"
        await subject.runner.do(await subject.remove(volume))

    async def test_a_broken_archive_leaves_the_volume_empty(self, subject: Subject) -> None:
        subject.require(Cap.FILL)
        archive = await subject.shell('f=$(mktemp); echo no archive >"$f"; echo "$f"')
        volume = subject.volume()
        await subject.runner.do(await subject.create(volume))
        steps = await subject.fill(volume, archive.strip())
        with pytest.raises(CommandFailedError):
            await subject.runner.do(steps)
        assert await subject.shell('ls -A "$1"', subject.pool.location(subject.context(), volume)) == ""
        await subject.runner.undo([*await subject.create(volume), *steps])
        assert volume.name not in await subject.names()

    @pytest.mark.parametrize("verb", ["create", "clone", "fill", "authorize"])
    async def test_undone_after_a_failure_at_each_step(self, subject: Subject, verb: str) -> None:
        """Whether the step that failed did nothing, or all before its answer was lost."""
        capability = {"clone": Cap.CLONE, "fill": Cap.FILL, "authorize": Cap.AUTHORIZE}.get(verb)
        if capability is not None:
            subject.require(capability)
        source = await subject.made()
        archive = (await subject.shell('f=$(mktemp); tar -cf "$f" -C /etc hostname; echo "$f"')).strip()
        number = 0
        while True:
            volume = source if verb == "authorize" else subject.volume()
            steps = await self._steps(subject, verb, source, volume, archive)
            if number > len(steps):
                break
            before = await subject.names()
            for tried in (steps[: max(number - 1, 0)], steps[:number]):
                await subject.runner.do(tried)
                await subject.runner.undo(steps[:number])
                assert await subject.names() == before
                assert await subject.grants(volume) == []
            number += 1
        assert number >= 2
        await subject.runner.do(await subject.remove(source))

    @staticmethod
    async def _steps(subject: Subject, verb: str, source: Volume, volume: Volume, archive: str) -> Steps:
        match verb:
            case "create":
                return await subject.create(volume)
            case "clone":
                return await subject.clone(source, volume)
            case "fill":
                return (*await subject.create(volume), *await subject.fill(volume, archive))
        return await subject.authorize(volume, subject.clients[0], 1)

    async def test_two_callers_at_once(self, subject: Subject) -> None:
        """The same call twice ends as one; two clients at once end as one grant."""
        volume = subject.volume()
        other = StepRunner(subject.hosts, name="other")
        steps = await subject.create(volume)
        await asyncio.gather(*(runner.do(steps) for runner in (subject.runner, other) for _ in range(3)))
        assert volume.name in await subject.names()
        if Cap.AUTHORIZE in subject.declared:
            grants = [await subject.authorize(volume, client, 1) for client in subject.clients[:2]]
            await asyncio.gather(subject.runner.do(grants[0]), other.do(grants[1]), subject.runner.do(grants[0]))
            assert len(await subject.grants(volume)) == 1
            await subject.runner.do(await subject.revoke(volume, subject.clients[0], 1))
        removal = await subject.remove(volume)
        await asyncio.gather(subject.runner.do(removal), other.do(removal))
        assert volume.name not in await subject.names()

    async def test_a_host_that_does_not_answer(self, subject: Subject) -> None:
        dead = subject.context(subject.dead_host)
        with pytest.raises(UnreachableError):
            await subject.runner.facts([*subject.pool.facts(dead), *subject.export.facts(dead)])
        steps = subject.pool.create(dead, subject.volume(), await subject.pool_facts())
        with pytest.raises(UnreachableError):
            await subject.runner.do(steps)

    async def test_a_stale_generation_changes_nothing(self, subject: Subject) -> None:
        subject.require(Cap.AUTHORIZE)
        volume = await subject.made()
        first, second = subject.clients[:2]
        await subject.runner.do(await subject.authorize(volume, first, 5))
        before = await subject.grants(volume)
        late = StepRunner(subject.hosts, name="late", epoch=9)
        for steps in (
            await subject.authorize(volume, second, 4),
            await subject.revoke(volume, first, 4),
            subject.pool.remove(subject.context(), volume, await subject.pool_facts()),
        ):
            with pytest.raises(StaleError):
                await late.do(steps)
        taken_over = StepRunner(subject.hosts, name="taken over", epoch=2)
        await taken_over.do(await subject.authorize(volume, first, 5))
        with pytest.raises(StaleError):
            await subject.runner.do(await subject.revoke(volume, first, 5))
        assert await subject.grants(volume) == before
        assert await subject.reads(first, f"{subject.pool.location(subject.context(), volume)}/mark") == "content"
        await taken_over.do(await subject.revoke(volume, first, 5))
        await taken_over.do(await subject.remove(volume))

    async def test_exactly_one_client(self, subject: Subject) -> None:
        subject.require(Cap.AUTHORIZE)
        volume = await subject.made("secret")
        mark = f"{subject.pool.location(subject.context(), volume)}/mark"
        first, second = subject.clients[:2]
        assert await subject.reads(first, mark) is None
        for _ in range(2):
            await subject.runner.do(await subject.authorize(volume, first, 1))
        assert [(grant.client, grant.generation) for grant in await subject.grants(volume)] == [(first.address, 1)]
        assert await subject.reads(first, mark) == "secret"
        assert await subject.reads(second, mark) is None
        await subject.runner.do(await subject.authorize(volume, second, 2))
        assert await subject.reads(first, mark) is None
        assert await subject.reads(second, mark) == "secret"
        for _ in range(2):
            await subject.runner.do(await subject.revoke(volume, second, 2))
        assert await subject.grants(volume) == []
        assert await subject.reads(second, mark) is None
        await subject.runner.do(await subject.remove(volume))

    async def test_a_grant_survives_a_restart_and_so_does_a_revocation(self, subject: Subject) -> None:
        subject.require(Cap.AUTHORIZE)
        kept, taken = await subject.made("kept"), await subject.made("taken")
        first, second = subject.clients[:2]
        places = [f"{subject.pool.location(subject.context(), volume)}/mark" for volume in (kept, taken)]
        await subject.runner.do(await subject.authorize(kept, first, 1))
        await subject.runner.do(await subject.authorize(taken, first, 1))
        await subject.runner.do(await subject.revoke(taken, first, 1))
        await subject.restart()
        assert await subject.reads(first, places[0]) == "kept"
        assert await subject.reads(second, places[0]) is None
        assert await subject.reads(first, places[1]) is None
        await subject.runner.do(await subject.authorize(kept, first, 1))
        await subject.runner.do(await subject.revoke(kept, first, 1))
        assert await subject.reads(first, places[0]) is None
        for volume in (kept, taken):
            await subject.runner.do(await subject.remove(volume))

    async def test_nothing_is_written_after_a_revocation(self, subject: Subject) -> None:
        """A client in the middle of writing, on a session that it has open; also across a restart of the server."""
        subject.require(Cap.REVOKE_PROOF)
        if not confirmed(subject.export, Cap.REVOKE_PROOF, subject.context(), await subject.export_facts()):
            pytest.skip("this host's server software proves no revocation, and the driver says so")
        volume = await subject.made()
        where = subject.pool.location(subject.context(), volume)
        first, second = subject.clients[:2]
        await subject.runner.do(await subject.authorize(volume, first, 1))
        stop = subject.start_counting(first, where, "counter")
        try:
            look = 'cat "$1/counter" 2>/dev/null || echo none'
            counts = [await self._later(subject, look, where, 0.3) for _ in range(10)]
            assert len(set(counts)) > 5, f"the client did not write: {counts}"
            await subject.runner.do(await subject.revoke(volume, first, 1))
            after = await subject.shell(look, where)
            assert await self._later(subject, look, where, WATCHED_SECONDS) == after
            await subject.runner.do(await subject.authorize(volume, second, 2))
            assert await self._later(subject, look, where, WATCHED_SECONDS) == after
            # It is the revocation that keeps the client out, and it has not given up: it goes on once it may.
            await subject.runner.do(await subject.authorize(volume, first, 3))
            assert await self._later(subject, look, where, WATCHED_SECONDS) != after
            # Revoked while its link is down, with writes in flight; the server restarts, the link comes back.
            subject.set_link(first, False)
            await subject.runner.do(await subject.revoke(volume, first, 3))
            after = await subject.shell(look, where)
            subject.set_link(first, True)
            assert await self._later(subject, look, where, WATCHED_SECONDS) == after
            await subject.restart()
            assert await self._later(subject, look, where, WATCHED_SECONDS) == after
        finally:
            subject.set_link(first, True)
            stop()
        await subject.runner.do(await subject.remove(volume))

    @staticmethod
    async def _later(subject: Subject, script: str, where: str, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return await subject.shell(script, where)

    async def test_what_a_client_without_address_gets(self, subject: Subject) -> None:
        subject.require(Cap.AUTHORIZE)
        volume = subject.volume()
        nobody = Client(resource_id=9, address="", mac="", name="nobody")
        with pytest.raises(OpenqrmError):
            await subject.authorize(volume, nobody, 1)

    async def test_attach_names_what_the_root_mount_needs(self, subject: Subject) -> None:
        volume = subject.volume()
        where = subject.pool.location(subject.context(), volume)
        given = subject.export.attach(subject.context(), volume, where, subject.clients[0])
        assert all(name == "FSTAB" or name.startswith("ROOT_") for name in given)
        assert all("\n" not in text for name, text in given.items() if name != "FSTAB")
        assert subject.export.root_device(subject.context(), volume, where)
