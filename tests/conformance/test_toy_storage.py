"""The conformance suite on a storage type that is right: all of it passes, and in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openqrm.testing import needs
from openqrm.testing.storage_suite import StorageSuite
from openqrm.testing.toy_storage.mutants import hurry
from openqrm.testing.toy_storage.rig import ToyRig, toy_rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from openqrm.testing.storage_subject import Subject


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToyRig]:
    needs.root_and("mkfs.btrfs")
    with toy_rig(tmp_path_factory.mktemp("toy")) as running:
        yield running


@pytest.fixture
async def subject(rig: ToyRig, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Subject]:
    hurry(monkeypatch)
    hosts = rig.hosts()
    yield rig.subject(hosts)
    await hosts.close()


class TestToyStorage(StorageSuite):
    """The conformance suite."""
