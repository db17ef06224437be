"""The `nbd-storage` plug-in on a real storage host: image files, an nbdkit for each, clients told apart by a key."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from openqrm.plugin_api.drivers import Grant
from openqrm.plugins.storage.nbd.plugin import PLUGIN
from openqrm.testing import needs
from openqrm.testing.access_nbd import NbdAccess
from openqrm.testing.image_files import ELSEWHERE, PREPARE, image_files, kill_servers
from openqrm.testing.storage_host import RealStorage, real_storage
from openqrm.testing.storage_suite import StorageSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from openqrm.plugin_api.drivers import Client
    from openqrm.testing.storage_subject import Subject

NEEDED = ("nbdkit", "qemu-io", "ganesha.nfsd", "sshd", "mkfs.btrfs", "ip")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStorage]:
    needs.root_and(*NEEDED)
    with real_storage(tmp_path_factory.mktemp("nbd"), f"b{os.getpid() % 100000}") as running:
        running.inside("sh", "-ec", PREPARE)
        yield running


def start_by_hand(storage: RealStorage, path: str, client: Client) -> None:
    """As an operator at the host's shell would."""
    del client  # without a key anybody may
    script = 'nbdkit -p "$((10000 + $$ % 9000))" file "$1" </dev/null >/dev/null 2>&1'
    storage.inside("sh", "-c", script, "sh", path)


@pytest.fixture
async def subject(storage: RealStorage) -> AsyncIterator[Subject]:
    async def grant_by_hand(path: str, client: Client) -> None:
        await asyncio.to_thread(start_by_hand, storage, path, client)

    access = NbdAccess(storage.clients)
    async with image_files(storage, PLUGIN, "nbd", access, "nbdkit", grant_by_hand) as made:
        yield made


class TestNbdStorage(StorageSuite):
    """The conformance suite."""


async def test_what_is_exported_from_elsewhere_is_none_of_ours(subject: Subject, storage: RealStorage) -> None:
    client, volume = subject.clients[0], await subject.made("mine")
    await subject.runner.do(await subject.authorize(volume, client, 1))
    await asyncio.to_thread(start_by_hand, storage, ELSEWHERE, client)
    ours = Grant(f"volume-{volume.id}", client.address, 1, subject.where(volume))
    assert await subject.all_grants() == [ours]
    await subject.runner.do(await subject.withdraw(ours))
    assert await subject.all_grants() == []
    assert "elsewhere" in await subject.shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    await asyncio.to_thread(kill_servers, storage, "nbdkit")
    await subject.drop(volume)
