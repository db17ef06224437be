"""The `local-storage` plug-in on a real storage host: the directories that machines keep their disks in.

They get at them as at an NFS root, so that all of the suite applies. What they then do to their disks is for the lab.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from openqrm.plugin_api.drivers import Start
from openqrm.plugins.storage.dir.plugin import PLUGIN as DIR
from openqrm.plugins.storage.local_storage.plugin import PLUGIN
from openqrm.plugins.storage.nfs.plugin import PLUGIN as NFS
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
    with real_storage(tmp_path_factory.mktemp("disks"), f"d{os.getpid() % 100000}") as running:
        yield running


@pytest.fixture
async def subject(storage: RealStorage) -> AsyncIterator[Subject]:
    with storage.controller_network():
        given = server_of(storage) | {"small_settings": small_directory(storage)}
        yield Subject.join(DIR, "dir", PLUGIN, "local", NFS, **given)
        await given["hosts"].close()


class TestLocalStorage(StorageSuite):
    """The conformance suite."""


def test_it_is_the_type_of_whole_disks(subject: Subject) -> None:
    assert subject.name == "local-storage"
    assert subject.export_declared is not None
    assert subject.export_declared.start is Start.DISK
