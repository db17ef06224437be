"""The conformance suite of exports, over any pool of their medium, on a real host with real clients.

A plug-in's test inherits from `ExportSuite` and provides the fixture `subject`, with an `Access`. What runs is decided
by the declared capabilities: a declared one cannot skip its tests, an undeclared one has none.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from openqrm.domain.errors import OpenqrmError
from openqrm.plugin_api.drivers import Cap, Client

if TYPE_CHECKING:
    from openqrm.domain.storage import Volume
    from openqrm.testing.storage_subject import Subject

WATCHED_SECONDS = 5.0
"""How long a revoked client's volume is watched."""
GOES_ON_SECONDS = 40.0
"""Within this a client that was let in again writes again: it may have to notice first, and to log in anew."""


class ExportSuite:
    """Inherit and provide the fixture `subject`."""

    async def test_exactly_one_client(self, subject: Subject) -> None:
        subject.require(Cap.AUTHORIZE)
        volume = await subject.made("mine")
        first, second = subject.clients[:2]
        assert await subject.reads(first, volume) is None
        steps = await subject.authorize(volume, first, 1)
        for _ in range(2):
            await subject.runner.do(steps)
        assert [grant.generation for grant in await subject.grants(volume)] == [1]
        assert await subject.reads(first, volume) == "mine"
        assert await subject.reads(second, volume) is None
        await subject.runner.do(await subject.authorize(volume, second, 2))
        assert [grant.generation for grant in await subject.grants(volume)] == [2]
        assert await subject.reads(first, volume) is None
        assert await subject.reads(second, volume) == "mine"
        for _ in range(2):
            await subject.runner.do(await subject.revoke(volume, second, 2))
        assert await subject.grants(volume) == []
        assert await subject.reads(second, volume) is None
        await subject.drop(volume)

    async def test_a_client_reads_and_writes_the_volume_itself(self, subject: Subject) -> None:
        """What it writes is in the volume of the pool, and in no other one that is exported beside it."""
        subject.require(Cap.AUTHORIZE)
        one, other = await subject.made("one"), await subject.made("other")
        client = subject.clients[0]
        for volume in (one, other):
            await subject.runner.do(await subject.authorize(volume, client, 1))
        assert [await subject.reads(client, volume) for volume in (one, other)] == ["one", "other"]
        given = (subject.attach(one, client), subject.told(one, client))
        assert await asyncio.to_thread(subject.uses.write, client, *given, "new")
        assert [await subject.mark(volume) for volume in (one, other)] == ["new", "other"]
        for volume in (one, other):
            await subject.runner.do(await subject.revoke(volume, client, 1))
        await subject.drop(one, other)

    async def test_a_grant_survives_a_restart_and_so_does_a_revocation(self, subject: Subject) -> None:
        subject.require(Cap.AUTHORIZE)
        kept, taken = await subject.made("kept"), await subject.made("taken")
        first, second = subject.clients[:2]
        for volume in (kept, taken):
            await subject.runner.do(await subject.authorize(volume, first, 1))
        assert await subject.reads(first, taken) == "taken"
        await subject.runner.do(await subject.revoke(taken, first, 1))
        assert subject.restart is not None
        await subject.restart()
        assert await subject.reads(first, kept) == "kept"
        assert await subject.reads(second, kept) is None
        assert await subject.reads(first, taken) is None
        assert [grant.generation for grant in await subject.grants(kept)] == [1]
        await subject.runner.do(await subject.authorize(kept, first, 1))
        assert await subject.reads(first, kept) == "kept"
        await subject.runner.do(await subject.revoke(kept, first, 1))
        assert await subject.reads(first, kept) is None
        await subject.drop(kept, taken)

    async def test_nothing_is_written_after_a_revocation(self, subject: Subject) -> None:
        """A client in the middle of writing, on a session that it has open; also across a restart of the server."""
        await subject.confirm(Cap.REVOKE_PROOF)
        volume = await subject.made()
        first, second = subject.clients[:2]
        await subject.runner.do(await subject.authorize(volume, first, 1))
        stop = subject.start_counting(first, volume)
        try:
            await _writes(subject, volume)
            await subject.runner.do(await subject.revoke(volume, first, 1))
            await _stays(subject, volume)
            await subject.runner.do(await subject.authorize(volume, second, 2))
            await _stays(subject, volume)
            await self._it_was_the_revocation(subject, volume, stop)
        finally:
            subject.uses.set_link(first, up=True)
            stop()
        await subject.drop(volume)

    async def test_nothing_is_written_after_a_revocation_while_the_link_is_down(self, subject: Subject) -> None:
        """With writes in flight; then the link comes back, and the server restarts."""
        await subject.confirm(Cap.REVOKE_PROOF)
        volume = await subject.made()
        first = subject.clients[0]
        await subject.runner.do(await subject.authorize(volume, first, 1))
        stop = subject.start_counting(first, volume)
        try:
            await _writes(subject, volume)
            subject.uses.set_link(first, up=False)
            await subject.runner.do(await subject.revoke(volume, first, 1))
            after = await subject.counter(volume)
            subject.uses.set_link(first, up=True)
            await _stays(subject, volume, after)
            assert subject.restart is not None
            await subject.restart()
            await _stays(subject, volume, after)
        finally:
            subject.uses.set_link(first, up=True)
            stop()
        await subject.drop(volume)

    @staticmethod
    async def _it_was_the_revocation(subject: Subject, volume: Volume, stop: object) -> None:
        """What kept the client out: it goes on once it may. A secret is new for each grant, so that a client which was
        told one begins anew."""
        first = subject.clients[0]
        await subject.runner.do(await subject.authorize(volume, first, 3))
        before = await subject.counter(volume)
        if subject.export_declared is not None and subject.export_declared.secrets:
            assert callable(stop)
            stop()
            again = subject.start_counting(first, volume)
        else:
            again = None
        try:
            await _changes(subject, volume, before)
        finally:
            if again is not None:
                again()
        await subject.runner.do(await subject.revoke(volume, first, 3))
        await _stays(subject, volume)

    async def test_what_a_client_without_address_gets(self, subject: Subject) -> None:
        subject.require(Cap.AUTHORIZE)
        volume = subject.volume()
        nobody = Client(resource_id=9, address="", mac="", name="nobody")
        with pytest.raises(OpenqrmError):
            await subject.authorize(volume, nobody, 1)

    async def test_attach_names_what_the_root_mount_needs(self, subject: Subject) -> None:
        volume = subject.volume()
        given = subject.attach(volume, subject.clients[0])
        assert any(name.startswith("ROOT_") for name in given), "a machine is told nothing of the volume"
        assert all(name == "FSTAB" or name.startswith("ROOT_") for name in given)
        assert not any(name.startswith("ROOT_SECRET") for name in given)
        assert all("\n" not in text for name, text in given.items() if name != "FSTAB")
        assert subject.export.root_device(subject.context(), volume, subject.where(volume))


async def _writes(subject: Subject, volume: Volume) -> None:
    """The client has begun, and the counter grows."""
    counts: list[str] = []
    for _ in range(20):
        await asyncio.sleep(0.3)
        counts.append(await subject.counter(volume))
        if len(set(counts)) > 5:
            return
    raise AssertionError(f"the client did not write: {counts}")


async def _changes(subject: Subject, volume: Volume, before: str) -> None:
    """The counter is no longer what it was."""
    for _ in range(int(GOES_ON_SECONDS / 0.3)):
        await asyncio.sleep(0.3)
        if await subject.counter(volume) != before:
            return
    raise AssertionError("the client was let in again, and does not write")


async def _stays(subject: Subject, volume: Volume, after: str | None = None) -> None:
    """The counter does not grow any more."""
    before = await subject.counter(volume) if after is None else after
    await asyncio.sleep(WATCHED_SECONDS)
    assert await subject.counter(volume) == before
