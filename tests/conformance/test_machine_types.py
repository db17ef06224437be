"""The conformance suite of types whose volumes are in the machine: roots in memory, and on its own disks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from openqrm.plugin_api.drivers import Client
from openqrm.plugins.storage.local_server.plugin import PLUGIN as LOCAL_SERVER
from openqrm.plugins.storage.tmpfs.plugin import PLUGIN as TMPFS
from openqrm.testing.storage_own_suite import MachineSuite
from openqrm.testing.storage_subject import Subject

if TYPE_CHECKING:
    from openqrm.domain.storage import Volume

CLIENTS = tuple(
    Client(resource_id=10 + number, address=f"192.0.2.{number}", mac=f"52:54:00:00:00:0{number}", name=f"c{number}")
    for number in (1, 2)
)
GIVEN: dict[str, Any] = {
    "hosts": None,
    "host": CLIENTS[0].resource_id,
    "address": "192.0.2.1",
    "dead_host": 99,
    "clients": CLIENTS,
    "host_kind": "no host",
}


class TestTmpfsStorage(MachineSuite):
    """Roots in memory."""

    @pytest.fixture
    def subject(self) -> Subject:
        return Subject.join(TMPFS, "memory", TMPFS, "tmpfs", **GIVEN)


class TestLocalServer(MachineSuite):
    """Roots on a partition."""

    @pytest.fixture
    def subject(self) -> Subject:
        return Subject.join(
            LOCAL_SERVER, "partition", LOCAL_SERVER, "local-server", settings={"device": "/dev/vda1"}, **GIVEN
        )

    def volume(self, subject: Subject) -> Volume:
        settings: Any = subject.context().pool
        return subject.volume(0, name=settings.volume)
