"""Executes steps of a storage driver on real hosts, one after the other, without engine and journal."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import CommandFailedError
from openqrm.engine.ports import Finished, GateToken, Ready
from openqrm.plugin_api.facts import Fact, Facts
from openqrm.plugin_api.steps import Command, Irreversible, Run, Write

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from openqrm.engine.ports import Hosts
    from openqrm.plugin_api.steps import Gate, Step

_KEYS = itertools.count(1)


@dataclass
class StepRunner:
    """One controller's hands. Every try has a key of its own, as the engine's tries have."""

    hosts: Hosts
    epoch: int = 1
    name: str = "controller"
    performed: list[str] = field(default_factory=list)

    async def facts(self, facts: Iterable[Fact[Any]]) -> Facts:
        """Ask the hosts. CommandFailedError, UnreachableError."""
        values: dict[str, object] = {}
        for fact in facts:
            finished = await self.hosts.run(fact.host, Ready(fact.argv), gate=None, seconds=fact.timeout)
            if finished.status in fact.absent:
                values[fact.name] = fact.missing
            else:
                _must_be_ok(finished, (0,), f"fact {fact.name}")
                values[fact.name] = fact.parse(finished.stdout)
        return Facts(values)

    async def do(self, steps: Sequence[Step]) -> None:
        """Each step's `do`."""
        for step in steps:
            if isinstance(step, Run):
                await self._command(step, step.do, f"do {step.name}")
            elif isinstance(step, Write):
                gate, content = self._token(step.gate, step.name), _text(step.content)
                await self.hosts.write_file(step.host, step.path, content, step.mode, gate=gate, seconds=step.timeout)
            else:
                raise TypeError(f"a storage driver's step {step.name} is neither Run nor Write")
            self.performed.append(step.name)

    async def undo(self, steps: Sequence[Step]) -> None:
        """Each step's `undo`, the last step first; irreversible ones are left."""
        for step in reversed(steps):
            if isinstance(step, Run) and isinstance(step.undo, Command):
                await self._command(step, step.undo, f"undo {step.name}")
            elif isinstance(step, Write):
                gate = self._token(step.gate, step.name)
                await self.hosts.write_file(step.host, step.path, None, step.mode, gate=gate, seconds=step.timeout)
            elif not (isinstance(step, Run) and isinstance(step.undo, Irreversible)):
                raise TypeError(f"a storage driver's step {step.name} is neither Run nor Write")

    async def _command(self, step: Run, command: Command, what: str) -> None:
        ready = Ready(tuple(_text(word) or "" for word in command.argv), input=_text(command.input))
        gate = self._token(step.gate, step.name)
        finished = await self.hosts.run(step.host, ready, gate=gate, seconds=step.timeout)
        _must_be_ok(finished, command.ok, what)

    def _token(self, gate: Gate | None, step: str) -> GateToken | None:
        if gate is None:
            return None
        return GateToken(gate.volume, gate.generation, self.epoch, f"{self.name}-{step}-{next(_KEYS)}")


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise TypeError(f"{value!r} has to be resolved by the engine")


def _must_be_ok(finished: Finished, ok: tuple[int, ...], what: str) -> None:
    if finished.status not in ok:
        output = finished.stderr or finished.stdout
        raise CommandFailedError(f"{what}: {output.strip()}", exit_status=finished.status, output=output)
