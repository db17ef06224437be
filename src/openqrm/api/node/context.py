"""What the node API needs from the rest of the controller; `bootstrap` fills it in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from openqrm.operations.mounting import Surroundings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from openqrm.engine.ports import Database
    from openqrm.operations.heartbeats import HealthSink
    from openqrm.plugin_api.operation import Drivers, Hooks
    from openqrm.plugin_api.records import Reader, Writer

READERS = 4
"""Reads of the node API at once."""


class ChangedRecords(Protocol):
    """What a commit says: (entity name, id) of each record it touched."""

    @property
    def touched(self) -> frozenset[tuple[str, int]]:
        """The records."""


class ObservedDatabase(Protocol):
    """A database that tells of its commits, in the writing thread."""

    def on_commit(self, callback: Callable[[ChangedRecords], None]) -> Callable[[], None]:
        """Call back after every commit; returns how to stop it."""


@dataclass(frozen=True)
class BootServiceFile:
    """A boot service packed for machines: `content` is a gzipped tar."""

    name: str
    version: str
    sha256: str
    content: bytes


class NodeFiles(Protocol):
    """Files handed to machines. Blocking."""

    def read(self, reader: Reader, name: str) -> bytes | None:
        """`agent` or a plug-in's file such as `root-mount.nfs-root`; None when there is none of that name."""

    def program(self, reader: Reader, name: str) -> Path | None:
        """The archive of a program that the core or an enabled plug-in hands out; None for any other.

        MissingDependencyError when the server has no such program.
        """

    def services(self, reader: Reader) -> Sequence[BootServiceFile]:
        """The boot services of started plug-ins."""


@dataclass(frozen=True)
class NodeContext:
    """`enrol` queues, in the registration's own transaction, what plug-ins do when a resource joins; `moved` is awaited
    after one with another address or other SSH host keys than before. `api_url` and
    `boot_url` are the addresses machines use. `authorized_key` is the installation's public SSH key. `digest` gives the
    SHA-256 of a kernel's file by both their names, empty when there is none; it may block. `secret` reads the encrypted
    store. `settings` is what operations know of the installation.
    """

    database: Database
    observed: ObservedDatabase
    drivers: Callable[[Reader], Drivers]
    hooks: Callable[[Reader], Hooks]
    files: NodeFiles
    health: HealthSink
    enrol: Callable[[Writer, int], None]
    api_url: str
    boot_url: str
    authorized_key: str
    digest: Callable[[str, str], str]
    secret: Callable[[str], str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    heartbeat_seconds: int = 10
    moved: Callable[[int], Awaitable[None]] | None = None
    readers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(max_workers=READERS, thread_name_prefix="node-read")
    )
    writer: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(max_workers=1, thread_name_prefix="node-write")
    )
    """One thread: the database has one writer anyway, and machines are served in the order in which they came."""

    @property
    def around(self) -> Surroundings:
        """What deployments and boot scripts are computed with, beside the database."""
        return Surroundings(
            drivers=self.drivers,
            hooks=self.hooks,
            file=self.files.read,
            api_url=self.api_url,
            boot_url=self.boot_url,
            authorized_key=self.authorized_key,
            digest=self.digest,
            secret=self.secret,
            settings=self.settings,
        )
