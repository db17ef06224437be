"""The `nfs-storage` plug-in on a real storage host: sshd, nfs-ganesha, a file system with reflinks, two clients."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from openqrm.plugin_api.drivers import Cap, confirmed
from openqrm.plugins.storage.dir.plugin import PLUGIN as DIR
from openqrm.plugins.storage.nfs.plugin import PLUGIN
from openqrm.testing import needs
from openqrm.testing.nfs_storage import PROGRAMS, server_of, small_directory
from openqrm.testing.storage_host import RealStorage, real_storage
from openqrm.testing.storage_subject import Subject
from openqrm.testing.storage_suite import StorageSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStorage]:
    needs.root_and(*PROGRAMS)
    name = f"n{os.getpid() % 100000}"  # two runs may share a machine
    with real_storage(tmp_path_factory.mktemp("nfs"), name) as running:
        yield running


@pytest.fixture
async def subject(storage: RealStorage) -> AsyncIterator[Subject]:
    with storage.controller_network():
        given = server_of(storage) | {"small_settings": small_directory(storage), "variant": "ganesha"}
        yield Subject.join(DIR, "dir", PLUGIN, "nfs", **given)
        await given["hosts"].close()


class TestNfsStorage(StorageSuite):
    """The conformance suite."""


async def test_what_this_host_has_is_seen(subject: Subject, storage: RealStorage) -> None:
    export_facts, pool_facts = await subject.export_facts(), await subject.pool_facts()
    assert confirmed(subject.export, Cap.REVOKE_PROOF, subject.context(), export_facts)
    assert confirmed(subject.pool, Cap.CLONE_COW, subject.context(), pool_facts) == (storage.pool_type != "directory")
    assert confirmed(subject.pool, Cap.CLONE, subject.context(), pool_facts)
