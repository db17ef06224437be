"""Executing one command of the core: steps through the ports. What happens comes back as an event for the core."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from openqrm.domain.errors import (
    CommandFailedError,
    ConflictError,
    FailedError,
    InvalidError,
    OpenqrmError,
    StaleError,
    TimeoutPassedError,
    UnavailableError,
    UnsupportedError,
)
from openqrm.domain.operation import Operation, OperationStatus
from openqrm.engine import commandlog
from openqrm.engine.following import LONG_SECONDS, Following, WaitProgress
from openqrm.engine.messages import (
    Act,
    Cancel,
    Command,
    Failed,
    Happening,
    Planned,
    Prepare,
    Prepared,
    Refused,
    Succeeded,
    Undo,
    Verified,
    Verify,
)
from openqrm.engine.notifier import Notifier, domain_only
from openqrm.engine.ports import GateToken, Ready
from openqrm.engine.resolving import Resolver, secret_keys
from openqrm.engine.work import Work, previous_key, record_of, step_state
from openqrm.plugin_api import steps as declared
from openqrm.plugin_api.loading import load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

    from openqrm.engine.changes import Changes, Conditions
    from openqrm.engine.journal import Hold
    from openqrm.engine.ports import Database, Finished, Hosts
    from openqrm.engine.resolving import Secrets
    from openqrm.plugin_api.calls import CallContext
    from openqrm.plugin_api.changes import Progress
    from openqrm.plugin_api.steps import Plan, Step

log = logging.getLogger(__name__)

T = TypeVar("T")
KEPT_OUTPUT = 64_000
"""Characters of a command's output that are stored."""
SPARE_SECONDS = 15
"""How much longer than its limit a host call may take to say that it timed out."""


class Offload(Protocol):
    """Runs blocking code, in a bounded thread or (in a simulation) in place."""

    def __call__(self, function: Callable[[], T]) -> Awaitable[T]:
        """The function's result."""


@dataclass(frozen=True)
class Ports:
    """What executing steps needs. `call_context` makes the context of a `Call` step's function from its reference."""

    database: Database
    hosts: Hosts
    changes: Changes
    conditions: Conditions
    plan: Callable[[Operation, str], Awaitable[Plan]]
    secrets: Secrets
    call_context: Callable[[str, int, str, int], CallContext]
    notifier: Notifier = field(default_factory=Notifier)
    poll_seconds: float = 0.5


@dataclass(frozen=True)
class Outcome:
    """What happened: an event, the bodies of planned steps, and a text to be stored encrypted with it."""

    event: Happening
    planned: tuple[Step, ...] = ()
    keep: tuple[str, str] | None = None


class Execution:
    """Stateless but for its ports."""

    def __init__(self, ports: Ports, offload: Offload) -> None:
        self.ports = ports
        self.offload = offload
        self._waiting = 0

    async def perform(self, command: Command, work: Work, hold: Hold) -> Outcome:
        """Execute a command that is about a step. UnavailableError when our own database is away: nothing is lost."""
        if not isinstance(command, Prepare | Act | Verify | Undo):
            raise TypeError(f"{command} is not about a step")
        step = work.step(command.step)
        resolver = Resolver(work.outputs)
        try:
            wanted = dict.fromkeys(secret_keys(step))
            if wanted:
                resolver.secrets = await self.offload(lambda: {key: self.ports.secrets.get(key) for key in wanted})
            attempt = _Try(self, work, hold, step, resolver, command)
            with commandlog.about(attempt.purpose):
                return await attempt.run()
        except UnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a driver raises is the step's failure
            return Outcome(failure(error, resolver))


def failure(error: Exception, resolver: Resolver | None = None) -> Failed | Refused:
    """An exception as an event; what is wrong with the plan itself is not tried again."""
    mask = resolver.mask if resolver else lambda value: value
    if isinstance(error, StaleError):
        return Refused(mask(error.as_dict()))
    if isinstance(error, OpenqrmError):
        final = isinstance(error, InvalidError | UnsupportedError | FailedError | _LateError)
        facts = getattr(error, "facts", {})
        conflict = isinstance(error, ConflictError)
        return Failed(mask({**error.as_dict(), **facts}), retryable=not final, conflict=conflict)
    if isinstance(error, TimeoutError):
        return Failed({"code": "timeout", "detail": "the step did not end in time"})
    log.error("a step raised %s", mask(repr(error)), exc_info=None if resolver and resolver.used else error)
    return Failed({"code": "internal", "detail": mask(f"{type(error).__name__}: {error}")})


class _LateError(TimeoutPassedError):
    """A condition that did not come true in time: it was waited for long enough."""


@dataclass
class _Try:
    """One try of one step."""

    execution: Execution
    work: Work
    hold: Hold
    step: Step
    resolver: Resolver
    command: Prepare | Act | Verify | Undo

    @property
    def ports(self) -> Ports:
        """The ports."""
        return self.execution.ports

    @property
    def purpose(self) -> dict[str, object]:
        """What the commands of this try are for, for the log."""
        return {
            "operation": self.hold.operation_id,
            "name": self.work.operation.name,
            "actor": self.work.operation.actor,
            "step": self.step.name,
            "what": type(self.command).__name__.lower(),
            "attempt": self.work.record(self.step.name).attempts,
        }

    async def run(self) -> Outcome:
        """By kind of step."""
        match self.step:
            case declared.Run():
                return await self._run(self.step)
            case declared.Write():
                return await self._write(self.step)
            case declared.Send():
                return await self._send(self.step)
            case declared.Call():
                return await self._call(self.step)
            case declared.Wait():
                return await self._wait(self.step)
            case declared.Planning():
                return await self._plan(self.step)
            case declared.Change():
                raise TypeError("changes are executed by the journal's transactions")

    def _gate(self, gate: declared.Gate | None) -> GateToken | None:
        """The key is the same when a try is resumed after a crash, so that the gate can hand over its result."""
        if gate is None:
            return None
        attempts = self.work.record(self.step.name).attempts
        key = f"{self.hold.operation_id}-{self.step.name}-{type(self.command).__name__.lower()}-{attempts}"
        return GateToken(gate.volume, gate.generation, self.hold.epoch, key)

    async def _run(self, step: declared.Run) -> Outcome:
        if isinstance(self.command, Verify):
            assert step.verify is not None  # noqa: S101  # the core verifies only what can be
            finished = await self._command(step, step.verify, None)
            return Outcome(Verified(finished.status in step.verify.ok))
        command = step.undo if isinstance(self.command, Undo) else step.do
        assert isinstance(command, declared.Command)  # noqa: S101  # the core leaves irreversible steps alone
        finished = await self._command(step, command, self._gate(step.gate))
        mask = self.resolver.mask
        output: dict[str, Any] = {
            "stdout": mask(finished.stdout)[-KEPT_OUTPUT:],
            "stderr": mask(finished.stderr)[-KEPT_OUTPUT:],
            "status": finished.status,
        }
        if finished.status not in command.ok:
            text = (output["stderr"] or output["stdout"]).strip()
            last = text.splitlines()[-1] if text else "it said nothing"
            failed = CommandFailedError(
                f"{step.title or step.name}: exit status {finished.status}: {last}",
                exit_status=finished.status,
                output=output["stdout"] + output["stderr"],
            )
            failed.facts = {"host": step.host, "command": self._shown(command)}  # type: ignore[attr-defined]  # kept in the event
            raise failed
        if step.parse == "json" and isinstance(self.command, Act):
            output |= mask(_parsed(finished.stdout))
        return Outcome(Succeeded(output))

    def _shown(self, command: declared.Command) -> list[str]:
        shown: list[str] = self.resolver.mask([self.resolver.text(value) for value in command.argv])
        return shown

    async def _command(self, step: declared.Run, command: declared.Command, gate: GateToken | None) -> Finished:
        given = None if command.input is None else self.resolver.text(command.input)
        ready = Ready(tuple(self.resolver.text(value) for value in command.argv), given, self.resolver.used)
        async with asyncio.timeout(step.timeout + SPARE_SECONDS):
            if gate is None or step.timeout < LONG_SECONDS or not isinstance(self.command, Act):
                return await self.ports.hosts.run(step.host, ready, gate=gate, seconds=step.timeout)
            about = (self.ports.database, self.execution.offload, self.hold, step.name, step.host, gate)
            async with Following(*about, self.resolver.mask).on(self.ports.hosts):
                return await self.ports.hosts.run(step.host, ready, gate=gate, seconds=step.timeout)

    async def _write(self, step: declared.Write) -> Outcome:
        hosts, key = self.ports.hosts, previous_key(self.hold.operation_id, step.name)
        if isinstance(self.command, Prepare):
            found = await hosts.read_file(step.host, step.path, seconds=step.timeout)
            if found is None:
                return Outcome(Prepared({"previous": None}))
            return Outcome(Prepared({"previous": {"secret": key, "mode": found[1]}}), keep=(key, found[0]))
        content = None if step.content is None else self.resolver.text(step.content)
        mode = step.mode
        if isinstance(self.command, Undo):
            previous = self.work.record(step.name).output["previous"]
            content = None
            if previous is not None:
                content, mode = await self.execution.offload(lambda: self.ports.secrets.get(key)), previous["mode"]
        await hosts.write_file(step.host, step.path, content, mode, gate=self._gate(step.gate), seconds=step.timeout)
        return Outcome(Succeeded())

    async def _send(self, step: declared.Send) -> Outcome:
        hosts = self.ports.hosts
        if isinstance(self.command, Undo):
            await hosts.write_file(step.host, step.path, None, "0600", gate=None, seconds=step.timeout)
        else:
            await hosts.send_file(step.host, step.source, step.path, seconds=step.timeout)
        return Outcome(Succeeded())

    async def _call(self, step: declared.Call) -> Outcome:
        reference: str | declared.Irreversible | None = step.function
        arguments = step.arguments
        if isinstance(self.command, Verify):
            reference = step.verify
        elif isinstance(self.command, Undo):
            reference, arguments = step.undo, step.undo_arguments
        assert isinstance(reference, str)  # noqa: S101  # the core asks for nothing the step does not have
        chosen, make = reference, self.ports.call_context
        context = await self.execution.offload(
            lambda: make(chosen, self.hold.operation_id, step.name, self.hold.epoch)  # it may read our database
        )
        async with asyncio.timeout(step.timeout):
            answer = await load(reference)(context, **self.resolver.value(arguments))
        if isinstance(self.command, Verify):
            return Outcome(Verified(bool(answer)))
        return Outcome(Succeeded(self.resolver.mask(answer or {})))

    async def _plan(self, step: declared.Planning) -> Outcome:
        async with asyncio.timeout(step.timeout):
            plan = await self.ports.plan(self.work.operation, step.phase)
        taken = {record.name for record in self.work.steps}
        twice = sorted({planned.name for planned in plan.steps} & taken)
        if twice:
            raise InvalidError(f"phase {step.phase} plans steps that exist already: {', '.join(twice)}")
        used = {each.step for each in declared.deferred(list(plan.steps)) if hasattr(each, "step")}
        records = [record_of(planned, self.hold.operation_id, place) for place, planned in enumerate(plan.steps)]
        states = tuple(step_state(record, needed=record.name in used) for record in records)
        return Outcome(Planned(states, {"steps": len(states)}), planned=plan.steps)

    async def _wait(self, step: declared.Wait) -> Outcome:
        """Look, then sleep until something changed; the deadline counts from the step's recorded start."""
        ports, execution = self.ports, self.execution
        begun = self.work.record(step.name).started_at
        about = WaitProgress(ports.database, execution.offload, self.hold, step.name)
        execution._waiting += 1  # noqa: SLF001  # its own helper
        try:
            with ports.notifier.listening(domain_only) as wakeup:
                while True:
                    now, operation, progress = await execution.offload(lambda: self._look(step))
                    outcome = self._judged(step, now, begun, operation, progress)
                    if outcome is not None:
                        return outcome
                    if step.timeout >= LONG_SECONDS and isinstance(self.command, Act):
                        await about.show(now, progress.percent, progress.text)
                    left = (begun or now) + timedelta(seconds=self._deadline(step)) - now
                    await wakeup.wait(max(0.001, min(ports.poll_seconds, left.total_seconds())))
                    if execution._waiting > 8:  # noqa: SLF001
                        await asyncio.sleep(min(0.004 * execution._waiting, 0.3))  # noqa: SLF001  # many look at once
        finally:
            execution._waiting -= 1  # noqa: SLF001

    def _look(self, step: declared.Wait) -> tuple[datetime, Operation, Progress]:
        undoing = isinstance(self.command, Undo)
        with self.ports.database.read() as reader:
            operation = reader.get(Operation, self.hold.operation_id)
            progress = self.ports.conditions.look(
                reader, step, self.hold.operation_id, self.work.outputs, undoing=undoing
            )
            return reader.now, operation, progress

    def _judged(
        self, step: declared.Wait, now: datetime, begun: datetime | None, operation: Operation, progress: Progress
    ) -> Outcome | None:
        if (operation.owner, operation.epoch) != (self.hold.owner, self.hold.epoch):
            raise StaleError(f"operation {operation.id} was taken over")
        if progress.done:
            said = {"text": progress.text} if step.timeout >= LONG_SECONDS else {}  # in place of what was shown
            return Outcome(Succeeded(said | dict(progress.output)))
        if operation.cancel_requested and operation.status is OperationStatus.RUNNING and not operation.forward_only:
            return Outcome(Cancel())
        if progress.failed is not None:
            raise FailedError(progress.failed)
        seconds = self._deadline(step)
        if begun is not None and now >= begun + timedelta(seconds=seconds):
            raise _LateError(f"not within {seconds:g} s: {progress.text or step.condition}")
        return None

    def _deadline(self, step: declared.Wait) -> float:
        """Seconds."""
        undoing = isinstance(self.command, Undo)
        return step.undo_timeout if undoing and step.undo_timeout is not None else step.timeout


def _parsed(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CommandFailedError(f"the answer is not JSON: {error}", output=text[-KEPT_OUTPUT:]) from error
    if not isinstance(value, dict):
        raise CommandFailedError("the answer is not a JSON object", output=text[-KEPT_OUTPUT:])
    return value
