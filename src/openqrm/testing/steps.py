"""Executes steps of a storage driver on real hosts, one after the other, without engine and journal.

Deferred values are filled in as the engine does it; a secret that comes to stand in a command's words is refused, for
every user of a host can read those.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import CommandFailedError
from openqrm.engine.ports import Finished, GateToken, Ready
from openqrm.engine.resolving import Resolver
from openqrm.plugin_api.facts import Fact, Facts
from openqrm.plugin_api.steps import Command, Irreversible, Run, Write

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from openqrm.engine.ports import Hosts
    from openqrm.plugin_api.steps import Gate, Step

_KEYS = itertools.count(1)


@dataclass
class StepRunner:
    """One controller's hands. Every try has a key of its own, as the engine's tries have.

    `secrets` holds what steps refer to, by key.
    """

    hosts: Hosts
    epoch: int = 1
    name: str = "controller"
    secrets: Mapping[str, str] = field(default_factory=dict)
    performed: list[str] = field(default_factory=list)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)

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
                self.outputs[step.name] = await self._command(step, step.do, f"do {step.name}")
            elif isinstance(step, Write):
                await self._write(step, step.content)
            else:
                raise TypeError(f"a storage driver's step {step.name} is neither Run nor Write")
            self.performed.append(step.name)

    async def undo(self, steps: Sequence[Step]) -> None:
        """Each step's `undo`, the last step first; irreversible ones are left."""
        for step in reversed(steps):
            if isinstance(step, Run) and isinstance(step.undo, Command):
                await self._command(step, step.undo, f"undo {step.name}")
            elif isinstance(step, Write):
                await self._write(step, None)
            elif not (isinstance(step, Run) and isinstance(step.undo, Irreversible)):
                raise TypeError(f"a storage driver's step {step.name} is neither Run nor Write")

    async def _write(self, step: Write, content: object) -> None:
        text = None if content is None else Resolver(self.outputs, self.secrets).text(content)
        gate = self._token(step.gate, step.name)
        await self.hosts.write_file(step.host, step.path, text, step.mode, gate=gate, seconds=step.timeout)

    async def _command(self, step: Run, command: Command, what: str) -> dict[str, Any]:
        resolver = Resolver(self.outputs, self.secrets)
        words = tuple(resolver.text(word) for word in command.argv)
        shown = [key for key, text in self.secrets.items() if text and any(text in word for word in words)]
        if shown:
            raise AssertionError(f"{what}: secret {shown[0]} stands in the command's words")
        given = None if command.input is None else resolver.text(command.input)
        gate = self._token(step.gate, step.name)
        ready = Ready(words, input=given, secrets=resolver.used)
        finished = await self.hosts.run(step.host, ready, gate=gate, seconds=step.timeout)
        _must_be_ok(finished, command.ok, what)
        output: dict[str, Any] = {"stdout": finished.stdout, "stderr": finished.stderr, "status": finished.status}
        return output | (json.loads(finished.stdout) if step.parse == "json" and finished.stdout else {})

    def _token(self, gate: Gate | None, step: str) -> GateToken | None:
        if gate is None:
            return None
        return GateToken(gate.volume, gate.generation, self.epoch, f"{self.name}-{step}-{next(_KEYS)}")


def _must_be_ok(finished: Finished, ok: tuple[int, ...], what: str) -> None:
    if finished.status not in ok:
        output = finished.stderr or finished.stdout
        raise CommandFailedError(f"{what}: {output.strip()}", exit_status=finished.status, output=output)
