"""The `aoe-storage` plug-in on a real storage host: image files, a vblade for each, clients told apart by their MAC."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from openqrm.plugin_api.drivers import Grant
from openqrm.plugins.storage.aoe.plugin import PLUGIN
from openqrm.plugins.storage.file.plugin import PLUGIN as FILE
from openqrm.testing.access_aoe import AoeAccess
from openqrm.testing.storage_host import STORAGE, RealStorage, real_storage
from openqrm.testing.storage_subject import Subject
from openqrm.testing.storage_suite import StorageSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

POOL = "/srv/openqrm/images"
NEEDED = ("vblade", "ganesha.nfsd", "sshd", "mkfs.btrfs", "ip")
KILL = """
for process in /proc/[0-9]*; do
    [ "$(cat "$process/comm" 2>/dev/null)" != vblade ] || kill -9 "${process#/proc/}"
done
"""
BY_HAND = """
truncate -s 1M /var/tmp/elsewhere
for file in "$@"; do
    setsid vblade -m 52:54:00:00:00:99 9 "${file%%:*}" eth0 "${file#*:}" </dev/null >/dev/null 2>&1 &
done
sleep 1
"""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStorage]:
    missing = [name for name in NEEDED if shutil.which(name, path="/usr/sbin:/sbin:" + os.environ["PATH"]) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root and: {', '.join(missing)}")
    with real_storage(tmp_path_factory.mktemp("aoe"), "blkaoe") as running:
        running.inside("mkdir", "-p", POOL)
        yield running


@pytest.fixture
async def subject(storage: RealStorage) -> AsyncIterator[Subject]:
    async def restart() -> None:
        """Every exporter is killed; what watches over them starts them again."""
        await asyncio.to_thread(storage.inside, "sh", "-c", KILL)
        await asyncio.sleep(3)

    with storage.controller_network():
        hosts = storage.hosts()
        yield Subject.join(
            FILE,
            "file",
            PLUGIN,
            "aoe",
            hosts=hosts,
            host=STORAGE,
            address=storage.address,
            dead_host=STORAGE + 1,
            clients=tuple(machine.client() for machine in storage.clients),
            access=AoeAccess(storage.clients),
            restart=restart,
            set_host_link=lambda up: storage.set_link(up=up),
            settings={"directory": POOL},
        )
        await hosts.close()


class TestAoeStorage(StorageSuite):
    """The conformance suite."""


async def test_an_exporter_that_somebody_started_is_found_and_ended(subject: Subject, storage: RealStorage) -> None:
    """Beside ours on the same file, and on another file of the pool; what is elsewhere is none of our business."""
    client, volume, other = subject.clients[0], await subject.made("mine"), await subject.made("other")
    await subject.runner.do(await subject.authorize(volume, client, 1))
    files = [f"1:{subject.where(volume)}", f"2:{subject.where(other)}", "3:/var/tmp/elsewhere"]
    await asyncio.to_thread(storage.inside, "sh", "-c", BY_HAND, "sh", *files)
    ours = Grant(f"volume-{volume.id}", client.mac, 1, subject.where(volume))
    theirs = [Grant("", "52:54:00:00:00:99", -1, subject.where(each)) for each in (volume, other)]
    assert sorted(await subject.all_grants(), key=repr) == sorted([ours, *theirs], key=repr)
    for grant in theirs:
        await subject.runner.do(await subject.withdraw(grant))
    assert await subject.all_grants() == [ours]
    assert await subject.reads(client, volume) == "mine"
    await subject.runner.do(await subject.withdraw(ours))
    assert await subject.all_grants() == []
    assert await subject.reads(client, volume) is None
    await asyncio.to_thread(storage.inside, "sh", "-c", KILL)
    await subject.drop(volume, other)


async def test_exporters_come_back_with_the_host(subject: Subject, storage: RealStorage) -> None:
    """By what a host without systemd runs when it starts."""
    client, volume = subject.clients[0], await subject.made("mine")
    await subject.runner.do(await subject.authorize(volume, client, 1))
    await asyncio.to_thread(storage.restart_host)
    assert await subject.reads(client, volume) == "mine"
    assert [grant.generation for grant in await subject.all_grants()] == [1]
    await subject.runner.do(await subject.revoke(volume, client, 1))
    await asyncio.to_thread(storage.restart_host)
    assert await subject.reads(client, volume) is None
    await subject.drop(volume)
