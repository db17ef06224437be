"""Conformance suites that bring their own storage host: the lab's, in namespaces, made for one test class.

    class TestShelf(RealPoolSuite):
        plugin = PLUGIN
        pool = "shelf"
        prepare = "mkdir -p /srv/shelf"

Needs root, and what `openqrm lab` needs. The host has a kernel shared with the machine the test runs on.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from openqrm.testing import needs
from openqrm.testing.storage_host import STORAGE, RealStorage, real_storage
from openqrm.testing.storage_subject import Subject
from openqrm.testing.storage_suite import PoolSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from openqrm.plugin_api.plugin import Plugin

NEEDED = ("ganesha.nfsd", "sshd", "mkfs.btrfs", "ip")


def require_host() -> None:
    """Go on only where a storage host can be made. As `needs.root_and`."""
    needs.root_and(*NEEDED)


class RealPoolSuite(PoolSuite):
    """`PoolSuite` on a host of its own.

    `prepare` is run there once, as root (a directory, a file system), and `each_start` whenever the host was started
    (a mount).
    """

    plugin: ClassVar[Plugin]
    pool: ClassVar[str]
    prepare: ClassVar[str] = ""
    each_start: ClassVar[str] = ""
    settings: ClassVar[Mapping[str, object]] = {}
    small_settings: ClassVar[Mapping[str, object] | None] = None
    """Of a storage whose place holds `storage_subject.SMALL_MB`, for the tests of a full pool."""

    @pytest.fixture(scope="class")
    @classmethod
    def storage(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStorage]:
        """The host."""
        require_host()
        name = f"p{zlib.crc32(cls.plugin.name.encode()):08x}"
        with real_storage(tmp_path_factory.mktemp("pool"), name, clients=0) as running:
            running.inside("sh", "-ec", f"{cls.prepare}\n{cls.each_start}")
            yield running

    @pytest.fixture
    async def subject(self, storage: RealStorage) -> AsyncIterator[Subject]:
        """The pool on it."""

        async def crash() -> None:
            await asyncio.to_thread(storage.restart_host)
            await asyncio.to_thread(storage.inside, "sh", "-ec", self.each_start)

        with storage.controller_network():
            hosts = storage.hosts()
            given: dict[str, Any] = {"hosts": hosts, "host": STORAGE, "address": storage.address}
            given |= {"dead_host": STORAGE + 1, "settings": dict(self.settings)}
            given |= {"set_host_link": lambda up: storage.set_link(up=up), "crash": crash}
            given |= {"small_settings": dict(self.small_settings) if self.small_settings else None}
            yield Subject.alone(self.plugin, self.pool, **given)
            await hosts.close()
