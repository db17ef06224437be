"""What the engine needs from the outside. `bootstrap` wires the implementations; tests wire fakes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from openqrm.plugin_api.plugin import Plugin
    from openqrm.plugin_api.records import Reader, Writer


class Database(Protocol):
    """One database. Blocking; the runners call it in bounded threads."""

    def read(self) -> AbstractContextManager[Reader]:
        """A consistent read. UnavailableError when the database is away."""

    def write(self) -> AbstractContextManager[Writer]:
        """A transaction: committed at the end, rolled back on an exception. UnavailableError."""


class PluginTables(Protocol):
    """The tables of plug-ins' own entities, within a transaction of the database they are in."""

    def make(self, writer: Writer, plugin: Plugin) -> None:
        """Make them, or bring those that were kept up to date. UnavailableError."""

    def drop(self, writer: Writer, plugin: Plugin) -> None:
        """Remove them with all that is in them; nothing happens when there are none."""


@dataclass(frozen=True)
class Ready:
    """A command with all deferred values filled in. `secrets` are the texts to mask in logs and outputs."""

    argv: tuple[str, ...]
    input: str | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class GateToken:
    """What the host gate compares and remembers: (generation, epoch) must not be lower than the highest seen.

    `key` names this try of this step: a controller that reconnects asks for the result under the same key.
    """

    volume: str
    generation: int
    epoch: int
    key: str


@dataclass(frozen=True)
class Finished:
    """A command that ran to its end."""

    status: int
    stdout: str
    stderr: str


class Hosts(Protocol):
    """Commands and files on resources; resource 0 is the server itself, reached through the same calls."""

    async def run(self, host: int, command: Ready, *, gate: GateToken | None, seconds: float) -> Finished:
        """Run to the end. UnreachableError, TimeoutPassedError; StaleError when the gate refuses."""

    async def read_file(self, host: int, path: str, *, seconds: float) -> tuple[str, str] | None:
        """Content and mode (`0644`) of a file, or None when there is none."""

    async def write_file(
        self, host: int, path: str, content: str | None, mode: str, *, gate: GateToken | None, seconds: float
    ) -> None:
        """Replace a file atomically; `content=None` removes it."""

    async def send_file(self, host: int, source: str, path: str, *, seconds: float) -> None:
        """Copy a file of the server to a path on a host, whole or not at all. InvalidError when there is none."""


@runtime_checkable
class Reporting(Protocol):
    """Hosts that can tell how far a long command is."""

    async def progress(self, host: int, gate: GateToken) -> tuple[int, str] | None:
        """Percent and text, as the command that runs under this token said last; None when it did not. No errors."""
