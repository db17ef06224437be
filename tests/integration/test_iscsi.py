"""The `iscsi-storage` plug-in with tgt on a real storage host: targets, sessions and secrets, two clients."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from openqrm.plugin_api.drivers import Cap, Grant, confirmed
from openqrm.plugins.storage.file.plugin import PLUGIN as FILE
from openqrm.plugins.storage.iscsi.facts import PREFIX
from openqrm.plugins.storage.iscsi.plugin import PLUGIN
from openqrm.testing import needs
from openqrm.testing.access_iscsi import IscsiAccess
from openqrm.testing.image_files import PREPARE, SMALL_POOL
from openqrm.testing.storage_host import STORAGE, RealStorage, real_storage
from openqrm.testing.storage_subject import Subject
from openqrm.testing.storage_suite import StorageSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from openqrm.plugin_api.drivers import Client

NEEDED = ("tgtd", "tgtadm", "tgt-admin", "sshd", "ganesha.nfsd", "iscsi-ls", "ip")
IMAGES = "/srv/openqrm/images"
SERVING = "until cmp -s /run/tgtd/pid /run/tgtd/serving; do sleep 0.1; done"
RESTART = f"rm /run/tgtd/serving; kill -9 $(cat /run/tgtd/pid); {SERVING}"
BY_HAND = """
tid=$(($(tgtadm --mode target --op show | sed -n 's/^Target \\([0-9]*\\):.*/\\1/p' | sort -n | tail -n 1) + 100))
tgtadm --lld iscsi --mode target --op new --tid "$tid" --targetname "iqn.2000-01.org.example:hand-$tid"
tgtadm --lld iscsi --mode logicalunit --op new --tid "$tid" --lun 1 --backing-store "$1"
tgtadm --lld iscsi --mode target --op bind --tid "$tid" --initiator-address "$2"
"""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStorage]:
    needs.root_and(*NEEDED)
    with real_storage(tmp_path_factory.mktemp("iscsi"), f"i{os.getpid() % 100000}") as running:
        running.inside("sh", "-ec", f"{PREPARE}\n{SERVING}")
        yield running


@pytest.fixture
async def subject(storage: RealStorage) -> AsyncIterator[Subject]:
    async def restart() -> None:
        await asyncio.to_thread(storage.inside, "sh", "-c", RESTART)

    async def crash() -> None:
        await asyncio.to_thread(storage.restart_host)
        await asyncio.to_thread(storage.inside, "sh", "-c", SERVING)

    async def grant_by_hand(location: str, client: Client) -> None:
        await asyncio.to_thread(storage.inside, "sh", "-euc", BY_HAND, "sh", location, client.address)

    with storage.controller_network():
        hosts = storage.hosts()
        yield Subject.join(
            FILE,
            "file",
            PLUGIN,
            "iscsi",
            hosts=hosts,
            host=STORAGE,
            address=storage.address,
            dead_host=STORAGE + 1,
            clients=tuple(machine.client() for machine in storage.clients),
            access=IscsiAccess(storage.clients),
            restart=restart,
            crash=crash,
            small_settings={"directory": SMALL_POOL, "overcommit": True},
            grant_by_hand=grant_by_hand,
            packages=("tgt",),
            variant="tgt",
            set_host_link=lambda up: storage.set_link(up=up),
            settings={"directory": IMAGES},
        )
        await hosts.close()


class TestIscsiStorage(StorageSuite):
    """The conformance suite."""


async def test_the_secret_is_seen_nowhere(subject: Subject) -> None:
    """Neither in the arguments of any program on the host while it is granted, nor in a file that others may read."""
    volume = await subject.made()
    watch = "for i in $(seq 300); do cat /proc/[0-9]*/cmdline; echo; done 2>/dev/null | tr '\\0' ' '"
    seen = asyncio.create_task(subject.shell(watch))
    await asyncio.sleep(0.2)
    for generation in range(1, 6):
        await subject.runner.do(await subject.authorize(volume, subject.clients[0], generation))
    shown = await seen
    assert "tgtadm" in shown, "nothing was seen of the grants: the test has watched at the wrong time"
    assert not [secret for secret in subject.secrets.values() if secret in shown]
    file = f"/etc/tgt/conf.d/openqrm-{volume.id}.conf"
    assert (await subject.shell(f"stat -c %a {file}")).strip() == "600"
    assert (await subject.shell(f"grep -c {subject.told(volume, subject.clients[0])['chap']} {file}")).strip() == "1"
    await subject.drop(volume)


async def test_the_secret_alone_is_not_enough(subject: Subject) -> None:
    volume, client = await subject.made("mine"), subject.clients[0]
    await subject.runner.do(await subject.authorize(volume, client, 1))
    named = {**subject.attach(volume, client), "ROOT_INITIATOR": f"{PREFIX}:client-525400000099"}
    assert await asyncio.to_thread(subject.uses.read, client, named, subject.told(volume, client)) is None
    assert await subject.reads(client, volume) == "mine"
    await subject.runner.do(await subject.revoke(volume, client, 1))
    await subject.drop(volume)


async def test_what_was_granted_by_hand_is_found_and_taken_back(subject: Subject) -> None:
    volume, other = await subject.made("mine"), await subject.made("other")
    client = subject.clients[0]
    await subject.runner.do(await subject.authorize(volume, client, 1))
    ours = await subject.all_grants()
    by_hand = f"""
    tid=$(tgtadm --mode target --op show | sed -n 's/^Target \\([0-9]*\\): {PREFIX}:volume-{volume.id}$/\\1/p')
    tgtadm --lld iscsi --mode target --op bind --tid "$tid" --initiator-address ALL
    tgtadm --lld iscsi --mode target --op bind --tid "$tid" --initiator-name iqn.2000-01.org.example:thief
    tgtadm --lld iscsi --mode target --op new --tid 77 --targetname iqn.2000-01.org.example:copy
    tgtadm --lld iscsi --mode logicalunit --op new --tid 77 --lun 1 --backing-store "$1"
    tgtadm --lld iscsi --mode target --op bind --tid 77 --initiator-address 10.0.0.0/8
    text='<target iqn.2000-01.org.example:later>\\n  backing-store %s\\n  backing-store /dev/null\\n</target>\\n'
    printf "$text" "$1" >/etc/tgt/conf.d/theirs.conf
    """
    await subject.shell(by_hand, subject.where(other))
    found = [each for each in await subject.all_grants() if each not in ours]
    where, there = subject.where(volume), subject.where(other)
    assert sorted(found, key=lambda each: (each.location == there, each.client)) == [
        Grant("", "ALL", -1, where),
        Grant("", "iqn.2000-01.org.example:thief", -1, where),
        Grant("", "10.0.0.0/8", -1, there),
        Grant("", "ALL", -1, there),
    ]
    for grant in found:
        for _ in range(2):
            await subject.runner.do(await subject.withdraw(grant))
    assert await subject.all_grants() == ours
    assert await subject.reads(client, volume) == "mine"
    assert "/dev/null" in await subject.shell("cat /etc/tgt/conf.d/theirs.conf"), "what is none of ours stays"
    assert subject.restart is not None
    await subject.restart()
    assert await subject.all_grants() == ours
    assert await subject.reads(client, volume) == "mine"
    for grant in ours:
        await subject.runner.do(await subject.withdraw(grant))
    assert await subject.all_grants() == []
    await subject.shell("rm /etc/tgt/conf.d/theirs.conf*")
    await subject.drop(volume, other)


async def test_what_this_host_has_is_seen(subject: Subject) -> None:
    assert confirmed(subject.export, Cap.REVOKE_PROOF, subject.context(), await subject.export_facts())
