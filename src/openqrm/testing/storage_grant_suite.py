"""Whom an export lets in: secrets, impostors, grants made behind our back, what is lent. Part of the export suite."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from openqrm.plugin_api.drivers import Cap, Sans

if TYPE_CHECKING:
    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import Client, Grant
    from openqrm.testing.storage_subject import Subject


class GrantSuite:
    """Inherit and provide the fixture `subject`."""

    async def test_a_machine_that_poses_as_another(self, subject: Subject) -> None:
        """It has the other's address and MAC and says its name, and not its secret. Where an export has none, nothing
        keeps it out: such an export trusts the storage network, and the report says so."""
        subject.require(Cap.AUTHORIZE)
        volume = await subject.made("mine")
        victim, impostor = subject.clients[:2]
        await subject.runner.do(await subject.authorize(volume, victim, 1))
        attach, told = subject.attach(volume, victim), subject.told(volume, victim)
        assert await asyncio.to_thread(subject.uses.read, victim, attach, told) == "mine"
        with subject.uses.posing_as(impostor, victim):
            without = [
                await asyncio.to_thread(subject.uses.read, impostor, attach, given)
                for given in (subject.wrong_secrets(), dict.fromkeys(told, ""))
            ]
            knowing = await asyncio.to_thread(subject.uses.read, impostor, attach, told)
        # With the secret it is let in: it was the secret that kept it out.
        assert knowing == "mine"
        wanted = None if subject.has_secrets else "mine"
        assert without == [wanted, wanted]
        assert await subject.reads(victim, volume) == "mine"
        await subject.runner.do(await subject.revoke(volume, victim, 1))
        await subject.drop(volume)

    async def test_a_secret_is_of_one_grant(self, subject: Subject) -> None:
        """The one before does not work any more, for the same machine and the same volume."""
        subject.require(Cap.AUTHORIZE)
        if not subject.has_secrets:
            subject.skip("it declares no secrets")
        volume, client = await subject.made("mine"), subject.clients[0]
        await subject.runner.do(await subject.authorize(volume, client, 1))
        attach, old = subject.attach(volume, client), subject.told(volume, client)
        assert await asyncio.to_thread(subject.uses.read, client, attach, old) == "mine"
        await subject.runner.do(await subject.authorize(volume, client, 2))
        assert await asyncio.to_thread(subject.uses.read, client, attach, old) is None
        assert await subject.reads(client, volume) == "mine"
        await subject.runner.do(await subject.revoke(volume, client, 2))
        await subject.drop(volume)

    async def test_secrets_are_told_to_nobody_else(self, subject: Subject) -> None:
        """Not in what machines are told in the clear, not in what the host prints, not in what it runs."""
        subject.require(Cap.AUTHORIZE)
        if not subject.has_secrets:
            subject.skip("it declares no secrets")
        volume, client = await subject.made("mine"), subject.clients[0]
        await subject.runner.do(await subject.authorize(volume, client, 1))
        told = subject.told(volume, client)
        seen = [
            *subject.attach(volume, client).values(),
            subject.export.root_device(subject.context(), volume, subject.where(volume)),
            str(await subject.all_grants()),
            str(subject.runner.outputs),
            await subject.shell("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"),
        ]
        assert told
        assert not [text for text in told.values() if any(text in each for each in seen)]
        await subject.runner.do(await subject.revoke(volume, client, 1))
        await subject.drop(volume)

    async def test_a_grant_made_by_hand_is_found_and_withdrawn(self, subject: Subject) -> None:
        """To a volume that nobody has a lease of, and to one that is granted to another machine, which keeps it."""
        subject.require(Cap.AUTHORIZE)
        subject.needs("grant_by_hand")
        assert subject.grant_by_hand is not None
        rightful, stranger = subject.clients[:2]
        free, leased = await subject.made("free"), await subject.made("leased")
        await subject.runner.do(await subject.authorize(leased, rightful, 1))
        for volume in (free, leased):
            known = await subject.all_grants()
            await subject.grant_by_hand(subject.where(volume), stranger)
            found = _by_hand(await subject.all_grants(), known)
            assert found, f"grants does not tell of the one made by hand: {await subject.all_grants()}"
            for grant in found:
                for _ in range(2):
                    await subject.runner.do(await subject.withdraw(grant))
            assert _by_hand(await subject.all_grants(), known) == []
            assert await subject.reads(stranger, volume) is None
        assert [grant.generation for grant in await subject.grants(leased)] == [1]
        assert await subject.reads(rightful, leased) == "leased"
        await subject.runner.do(await subject.revoke(leased, rightful, 1))
        await subject.drop(free, leased)

    async def test_the_longest_name_is_granted(self, subject: Subject) -> None:
        """A name of 63 characters, beside one that differs in its last only."""
        subject.require(Cap.AUTHORIZE)
        client = subject.clients[0]
        start = f"{subject.volume().name}-{'x' * 63}"[:62]
        volumes = [subject.volume(name=f"{start}{end}") for end in "yz"]
        for volume in volumes:
            await subject.runner.do(await subject.create(volume))
            await subject.put_mark(volume, volume.name)
        await subject.runner.do(await subject.authorize(volumes[0], client, 1))
        told = subject.told(volumes[0], client)
        found = [
            await asyncio.to_thread(subject.uses.read, client, subject.attach(volume, client), told)
            for volume in volumes
        ]
        assert found == [volumes[0].name, None]
        await subject.runner.do(await subject.revoke(volumes[0], client, 1))
        assert await subject.reads(client, volumes[0]) is None
        await subject.drop(*volumes)

    async def test_a_disk_for_the_boot_loader(self, subject: Subject) -> None:
        if not hasattr(subject.export, "san"):
            subject.skip("the boot loader cannot attach it")
        export: Any = subject.export
        driver: Sans = export
        volume, client = subject.volume(), subject.clients[0]
        disk = driver.san(subject.context(), volume, subject.where(volume), client)
        assert disk.uri.partition(":")[0] in ("iscsi", "aoe", "http", "https")
        assert subject.export_declared is not None
        assert disk.secret in ("", *subject.export_declared.secrets)
        assert bool(disk.secret) == subject.has_secrets, "the boot loader needs the secret too"


class LendSuite:
    """What is lent is read by many and written by none of them."""

    async def test_many_read_and_none_of_them_writes(self, subject: Subject) -> None:
        subject.require(Cap.LEND)
        volume = await subject.made("lent")
        for client in subject.clients:
            steps = await subject.lend(volume, client)
            for _ in range(2):
                await subject.runner.do(steps)
        for client in subject.clients:
            assert await self._reads(subject, volume, client) == "lent"
            assert not await self._writes(subject, volume, client, "changed")
        assert await subject.mark(volume) == "lent"
        lent = [grant for grant in await subject.all_grants() if grant.volume == f"volume-{volume.id}"]
        assert len(lent) == len(subject.clients)
        assert not any(grant.writes for grant in lent)
        assert await subject.grants(volume) == []
        for client in subject.clients:
            for _ in range(2):
                await subject.runner.do(await subject.reclaim(volume, client))
            assert await self._reads(subject, volume, client) is None
        assert not [grant for grant in await subject.all_grants() if grant.volume == f"volume-{volume.id}"]
        await subject.drop(volume)

    async def test_lent_beside_one_that_writes(self, subject: Subject) -> None:
        """The writer keeps it and stays the only one; neither ending ends the other."""
        subject.require(Cap.LEND, Cap.AUTHORIZE)
        volume = await subject.made("mine")
        writer, reader = subject.clients[:2]
        await subject.runner.do(await subject.authorize(volume, writer, 1))
        await subject.runner.do(await subject.lend(volume, reader))
        assert await self._reads(subject, volume, reader) == "mine"
        assert not await self._writes(subject, volume, reader, "stolen")
        given = (subject.attach(volume, writer), subject.told(volume, writer))
        assert await asyncio.to_thread(subject.uses.write, writer, *given, "newer")
        assert [grant.generation for grant in await subject.grants(volume)] == [1]
        await subject.runner.do(await subject.reclaim(volume, reader))
        assert await self._reads(subject, volume, reader) is None
        assert await subject.reads(writer, volume) == "newer"
        await subject.runner.do(await subject.lend(volume, reader))
        await subject.runner.do(await subject.revoke(volume, writer, 1))
        assert await subject.reads(writer, volume) is None
        assert await self._reads(subject, volume, reader) == "newer"
        await subject.runner.do(await subject.reclaim(volume, reader))
        await subject.drop(volume)

    async def test_what_is_lent_stays_so_over_a_restart(self, subject: Subject) -> None:
        subject.require(Cap.LEND)
        volume = await subject.made("lent")
        first, second = subject.clients[:2]
        for client in (first, second):
            await subject.runner.do(await subject.lend(volume, client))
        await subject.runner.do(await subject.reclaim(volume, second))
        assert subject.restart is not None
        await subject.restart()
        assert await self._reads(subject, volume, first) == "lent"
        assert not await self._writes(subject, volume, first, "changed")
        assert await self._reads(subject, volume, second) is None
        await subject.runner.do(await subject.reclaim(volume, first))
        await subject.drop(volume)

    @staticmethod
    async def _reads(subject: Subject, volume: Volume, client: Client) -> str | None:
        given = (subject.lent(volume, client), subject.told(volume, client))
        return await asyncio.to_thread(subject.uses.read, client, *given)

    @staticmethod
    async def _writes(subject: Subject, volume: Volume, client: Client, text: str) -> bool:
        given = (subject.lent(volume, client), subject.told(volume, client))
        return await asyncio.to_thread(subject.uses.write, client, *given, text)


def _by_hand(now: list[Grant], before: list[Grant]) -> list[Grant]:
    return [grant for grant in now if grant not in before and (grant.volume, grant.generation) == ("", -1)]
