"""Hosts that exist in memory: files, things made by commands, the host gate, and every way to fail.

A command's effect is made in two stages, so that a fault can leave it half done. `FakeHosts.commands` maps the first
word of an argument vector to what it does; tests add their own (a driver's script, say).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from openqrm.domain.errors import StaleError, TimeoutPassedError, UnreachableError
from openqrm.engine import commandlog
from openqrm.engine.ports import Finished, GateToken, Ready


class Fault(StrEnum):
    """What goes wrong with one call."""

    BEFORE = "before"
    """The host is unreachable; nothing happened."""
    DURING = "during"
    """The connection and the command die in the middle of the effect."""
    AFTER = "after"
    """Everything happened, but the answer is lost."""
    STATUS = "status"
    """The command ends with status 1 and did nothing."""
    HANG = "hang"
    """It never ends: the caller's time limit passes. Nothing happened."""


@dataclass
class FakeHost:
    """One host's disk."""

    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Content and mode by path."""
    things: dict[str, str] = field(default_factory=dict)
    """What `make` made: `half` or `whole`, by name."""
    grants: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    """Volume: the one client that has it, the generation and the epoch it was granted at."""
    lent: set[tuple[str, str]] = field(default_factory=set)
    """Volumes, and clients that may read them."""
    foreign: set[tuple[str, str]] = field(default_factory=set)
    """Grants that somebody made by hand: a place and a client."""
    contents: dict[str, str] = field(default_factory=dict)
    """What is in the things, by their names; `half: ` in front of what is not whole yet."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Of things, in MB."""
    seen: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The gate's memory: the highest (generation, epoch) by volume."""
    results: dict[str, Finished] = field(default_factory=dict)
    """The gate's kept results by key."""
    reachable: bool = True
    delay: float = 0.0
    """Seconds before a command acts."""


@dataclass(frozen=True)
class Request:
    """One call of a host, as handlers and fault schedules see it; `number` counts from 0."""

    number: int
    host: int
    argv: tuple[str, ...]
    input: str | None
    gate: GateToken | None


@dataclass(frozen=True)
class Effect:
    """One stage of an effect that was made, in the order of all hosts."""

    host: int
    argv: tuple[str, ...]
    gate: GateToken | None


Handler = Callable[[FakeHost, Request], Iterator[Finished | None]]
"""A generator: yields None between the stages of the effect and the result at the end."""
Schedule = Callable[[Request], Fault | None]


def no_faults(request: Request) -> Fault | None:
    """Everything works."""
    del request
    return None


def done(stdout: str = "", status: int = 0, stderr: str = "") -> Finished:
    """A result."""
    return Finished(status, stdout, stderr)


@dataclass
class FakeHosts:
    """Implements `engine.ports.Hosts`."""

    hosts: dict[int, FakeHost] = field(default_factory=dict)
    faults: Schedule = no_faults
    commands: dict[str, Handler] = field(default_factory=lambda: dict(COMMANDS))
    requests: list[Request] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    before: Callable[[Request], None] | None = None
    """Called first for every request; may raise, for example a simulated crash of the controller."""

    def host(self, number: int) -> FakeHost:
        """A host; it is there from the first time it is named."""
        return self.hosts.setdefault(number, FakeHost())

    async def run(self, host: int, command: Ready, *, gate: GateToken | None, seconds: float) -> Finished:
        """Run a command. Unknown ones end with status 127, as in a shell."""
        request = self._request(host, command.argv, command.input, gate)
        handler = self.commands.get(command.argv[0], _unknown)
        finished = await self._execute(request, handler, seconds)
        commandlog.record(host, command, gate, outcome="ended", status=finished.status, seconds=0)
        return finished

    async def read_file(self, host: int, path: str, *, seconds: float) -> tuple[str, str] | None:
        """Content and mode, or None."""
        request = self._request(host, ("(read)", path), None, None)
        finished = await self._execute(request, _nothing, seconds)
        if finished.status:
            raise UnreachableError(f"host {host} cannot read {path}")
        return self.host(host).files.get(path)

    async def write_file(
        self, host: int, path: str, content: str | None, mode: str, *, gate: GateToken | None, seconds: float
    ) -> None:
        """Replace or remove a file: one stage, because it is atomic."""
        request = self._request(host, ("(write)" if content is not None else "(remove)", path), content, gate)

        def handler(disk: FakeHost, request: Request) -> Iterator[Finished | None]:
            del request
            if content is None:
                disk.files.pop(path, None)
            else:
                disk.files[path] = (content, mode)
            yield None
            yield done()

        finished = await self._execute(request, handler, seconds)
        if finished.status:
            raise UnreachableError(f"host {host} cannot write {path}")

    async def send_file(self, host: int, source: str, path: str, *, seconds: float) -> None:
        """The file appears with a text that names its source: fakes have no files on the server."""
        await self.write_file(host, path, f"sent from {source}", "0600", gate=None, seconds=seconds)

    def _request(self, host: int, argv: tuple[str, ...], given: str | None, gate: GateToken | None) -> Request:
        request = Request(len(self.requests), host, argv, given, gate)
        self.requests.append(request)
        if self.before is not None:
            self.before(request)
        return request

    async def _execute(self, request: Request, handler: Handler, seconds: float) -> Finished:
        disk = self.host(request.host)
        fault = self.faults(request)
        if fault is Fault.BEFORE or not disk.reachable:
            raise UnreachableError(f"host {request.host} does not answer")
        if fault is Fault.HANG or disk.delay >= seconds:
            await asyncio.sleep(seconds)
            raise TimeoutPassedError(f"not within {seconds:g} s")
        if disk.delay:
            await asyncio.sleep(disk.delay)
        gate = request.gate
        if gate is not None:
            kept = _passed(disk, gate)
            if kept is not None:
                return kept
        if fault is Fault.STATUS:
            return done(status=1, stderr="the fault schedule says no")
        finished = self._stages(disk, request, handler, half=fault is Fault.DURING)
        if gate is not None:
            disk.results[gate.key] = finished
        if fault is Fault.AFTER:
            raise UnreachableError(f"the connection to host {request.host} was lost")
        return finished

    def _stages(self, disk: FakeHost, request: Request, handler: Handler, *, half: bool) -> Finished:
        for finished in handler(disk, request):
            if finished is not None:
                return finished
            self.effects.append(Effect(request.host, request.argv, request.gate))
            if half:
                raise UnreachableError(f"the connection to host {request.host} was lost in the middle")
        return done()


def _passed(disk: FakeHost, gate: GateToken) -> Finished | None:
    """The host gate: a kept result, or StaleError, or on with it."""
    if gate.key in disk.results and disk.seen.get(gate.volume, (0, 0)) <= (gate.generation, gate.epoch):
        return disk.results[gate.key]
    if (gate.generation, gate.epoch) < disk.seen.get(gate.volume, (0, 0)):
        raise StaleError(f"{gate.volume}: a later generation or epoch was here")
    disk.seen[gate.volume] = (gate.generation, gate.epoch)
    return None


def _unknown(disk: FakeHost, request: Request) -> Iterator[Finished | None]:
    del disk
    yield done(status=127, stderr=f"{request.argv[0]}: command not found")


def _nothing(disk: FakeHost, request: Request) -> Iterator[Finished | None]:
    del disk, request
    yield done()


def _make(disk: FakeHost, request: Request) -> Iterator[Finished | None]:
    """`make NAME [WORD…]` prints the words."""
    name = request.argv[1]
    if disk.things.get(name) != "whole":
        disk.things[name] = "half"
        yield None
        disk.things[name] = "whole"
        yield None
    yield done(" ".join(request.argv[2:]))


def _unmake(disk: FakeHost, request: Request) -> Iterator[Finished | None]:
    """`unmake NAME`."""
    name = request.argv[1]
    if name in disk.things:
        disk.things[name] = "half"
        yield None
        del disk.things[name]
        disk.contents.pop(name, None)
        yield None
    yield done()


def _is_made(disk: FakeHost, request: Request) -> Iterator[Finished | None]:
    """`made NAME`: status 0 if it is there and whole."""
    yield done(status=0 if disk.things.get(request.argv[1]) == "whole" else 1)


def _grant(disk: FakeHost, request: Request) -> Iterator[Finished | None]:
    """`grant VOLUME CLIENT`, at the gate's generation."""
    _, volume, client = request.argv
    gate = request.gate or GateToken(volume, 0, 0, "")
    disk.grants[volume] = (client, gate.generation, gate.epoch)
    yield None
    yield done()


def _revoke(disk: FakeHost, request: Request) -> Iterator[Finished | None]:
    """`revoke VOLUME`."""
    disk.grants.pop(request.argv[1], None)
    yield None
    yield done()


def _echo(disk: FakeHost, request: Request) -> Iterator[Finished | None]:
    """`echo WORD…`, and standard input after it."""
    del disk
    yield done(" ".join(request.argv[1:]) + (request.input or ""))


def _false(disk: FakeHost, request: Request) -> Iterator[Finished | None]:
    del disk, request
    yield done(status=1, stderr="false says no")


COMMANDS: dict[str, Handler] = {
    "make": _make,
    "unmake": _unmake,
    "made": _is_made,
    "grant": _grant,
    "revoke": _revoke,
    "echo": _echo,
    "true": _nothing,
    "false": _false,
}
"""What fake hosts can do from the start."""
