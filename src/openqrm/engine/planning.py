"""Planning a phase: ask the hosts for facts, in parallel, then let the pure planner look at them and our database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from openqrm.domain.errors import CommandFailedError, OpenqrmError, TimeoutPassedError
from openqrm.domain.operation import Operation as OperationRecord
from openqrm.domain.user import SYSTEM, Actor, User, UserRole
from openqrm.engine.ports import Ready
from openqrm.plugin_api.facts import Fact, Facts, Question
from openqrm.plugin_api.loading import load
from openqrm.plugin_api.operation import Call, PlanContext
from openqrm.plugin_api.steps import Change, Plan, Planning, deferred
from openqrm.plugin_api.values import Secret

if TYPE_CHECKING:
    from pydantic import BaseModel

    from openqrm.domain.model import Record
    from openqrm.engine.changes import Changes
    from openqrm.engine.ports import Database, Hosts
    from openqrm.engine.resolving import Secrets
    from openqrm.plugin_api.operation import Drivers, Hooks, Operation, Phase
    from openqrm.plugin_api.records import Reader, Writer
    from openqrm.plugin_api.steps import Step

T = TypeVar("T")
Offload = Callable[[Callable[[], Any]], Awaitable[Any]]
FACT_OUTPUT = 4_000


class _UndoneError(Exception):
    """Ends the transaction of a dry run without storing anything."""


@dataclass
class Planners:
    """Plans phases for the runner, and whole operations for a dry run.

    `operation` finds a declaration by name (NotFoundError); `own_settings` gives a plug-in's own settings by operation
    name, which planners see together with the installation's.
    """

    database: Database
    hosts: Hosts
    secrets: Secrets
    operation: Callable[[str], Operation]
    entities: Mapping[str, type[Record]]
    hooks: Callable[[Reader], Hooks]
    drivers: Callable[[Reader], Drivers]
    changes: Changes
    settings: Mapping[str, Any] = field(default_factory=dict)
    own_settings: Callable[[str, Reader], Mapping[str, Any]] | None = None
    offload: Offload = asyncio.to_thread
    loop: asyncio.AbstractEventLoop | None = None
    """Where `hosts` lives, for dry runs, which are called in other threads; set by `attach`."""
    dry_run_seconds: float = 20.0
    """How long a phase of a dry run waits for its facts."""

    def attach(self) -> None:
        """Remember the running loop."""
        self.loop = asyncio.get_running_loop()

    async def plan(self, operation: OperationRecord, phase: str) -> Plan:
        """The steps of a phase of a recorded operation; whatever facts, planner and database raise."""
        declared = self.operation(operation.name)
        chosen = next(each for each in declared.phases if each.name == phase)

        def look(function: Callable[[PlanContext], T], facts: Facts) -> T:
            with self.database.read() as reader:
                return function(self._recorded(reader, declared, operation, facts))

        wanted: Sequence[Fact[Any]] = ()
        if chosen.facts:
            wanted = await self.offload(lambda: look(load(chosen.facts or ""), Facts()))
        facts = await self.gather(wanted)
        plan: Plan = await self.offload(lambda: look(load(chosen.plan), facts))
        return plan

    async def gather(self, wanted: Sequence[Fact[Any]]) -> Facts:
        """All facts at once. UnreachableError, CommandFailedError, TimeoutPassedError."""
        async with asyncio.TaskGroup() as group:
            tasks = {fact.question: group.create_task(_Caught(self._ask(fact)).result()) for fact in wanted}
        answers: dict[Question, object] = {}
        for question, task in tasks.items():
            value, error = task.result()
            if error is not None:
                raise error
            answers[question] = value
        return Facts(answers=answers)

    async def _ask(self, fact: Fact[Any]) -> object:
        finished = await self.hosts.run(fact.host, Ready(fact.argv), gate=None, seconds=fact.timeout)
        output = (finished.stdout + finished.stderr)[-FACT_OUTPUT:]
        if finished.status in fact.absent:
            return fact.missing
        if finished.status != 0:
            raise CommandFailedError(
                f"{fact.name}: {fact.argv[0]} on host {fact.host} ended with status {finished.status}",
                exit_status=finished.status,
                output=output,
            )
        try:
            value: object = fact.parse(finished.stdout)
        except (ValueError, KeyError, IndexError) as error:
            raise CommandFailedError(f"{fact.name}: the answer cannot be read: {error}", output=output) from error
        return value

    def dry_run(self, declared: Operation, call: Call) -> tuple[Step, ...]:
        """What the operation would do: admission and every phase that can be planned now; nothing is stored.

        Blocking; called in a thread. A later phase that needs what an earlier one makes is shown as its planning step.
        What the first phase raises is the caller's answer.
        """
        with self._admitted(declared, call) as (_, _, admission):
            steps: list[Step] = list(admission)
        for number, phase in enumerate(declared.phases):
            try:
                steps += self._phase_now(declared, call, phase).steps
            except (OpenqrmError, LookupError):
                if number == 0:
                    raise
                steps.append(Planning(name=f"plan-{phase.name}", title="Planned when its turn comes", phase=phase.name))
        return tuple(steps)

    def _phase_now(self, declared: Operation, call: Call, phase: Phase) -> Plan:
        """Plan a phase in a transaction in which the admission was executed, and which is rolled back."""
        wanted: Sequence[Fact[Any]] = ()
        if phase.facts:
            with self._admitted(declared, call) as (writer, number, _):
                wanted = load(phase.facts)(self._context(writer, declared, call, number, Facts()))
        facts = self._gathered(wanted)
        with self._admitted(declared, call) as (writer, number, _):
            plan: Plan = load(phase.plan)(self._context(writer, declared, call, number, facts))
        return plan

    def _gathered(self, wanted: Sequence[Fact[Any]]) -> Facts:
        if not wanted:
            return Facts()
        if self.loop is None:
            return asyncio.run(self._soon(wanted))
        return asyncio.run_coroutine_threadsafe(self._soon(wanted), self.loop).result()

    async def _soon(self, wanted: Sequence[Fact[Any]]) -> Facts:
        """Somebody waits for the answer."""
        try:
            async with asyncio.timeout(self.dry_run_seconds):
                return await self.gather(wanted)
        except TimeoutError:
            hosts = ", ".join(str(host) for host in sorted({fact.host for fact in wanted}))
            raise TimeoutPassedError(
                f"hosts {hosts} did not say within {self.dry_run_seconds:g} s what the plan depends on",
                remedy="try again, or call the operation itself, which has more time",
            ) from None

    @contextmanager
    def _admitted(self, declared: Operation, call: Call) -> Iterator[tuple[Writer, int, tuple[Step, ...]]]:
        """A transaction as it would be after the operation was enqueued; always rolled back."""
        with suppress(_UndoneError), self.database.write() as writer:
            target = call.target
            record = OperationRecord(
                name=declared.name,
                target_kind=declared.kind,
                target_id=target.id if target is not None else None,
                actor=call.actor.name,
            )
            number = writer.insert(record).id
            plan: Plan = load(declared.admit)(writer, call) if declared.admit else Plan()
            outputs: dict[str, Mapping[str, Any]] = {}
            for step in plan.steps:
                if isinstance(step, Change):
                    outputs[step.name] = self.changes.do(writer, step, number, outputs)
            yield writer, number, plan.steps
            raise _UndoneError

    def _context(self, reader: Reader, declared: Operation, call: Call, operation_id: int, facts: Facts) -> PlanContext:
        target = reader.get(type(call.target), call.target.id) if call.target is not None else None
        own = self.own_settings(declared.name, reader) if self.own_settings else {}
        return PlanContext(
            operation_id=operation_id,
            actor=call.actor,
            target=target,
            arguments=call.arguments,
            read=reader,
            facts=facts,
            hooks=self.hooks(reader),
            drivers=self.drivers(reader),
            settings={**self.settings, **own},
        )

    def _recorded(self, reader: Reader, declared: Operation, operation: OperationRecord, facts: Facts) -> PlanContext:
        target: Record | None = None
        if operation.target_id is not None and operation.target_kind in self.entities:
            target = reader.get(self.entities[operation.target_kind], operation.target_id)
        arguments = self._arguments(declared, operation.arguments)
        call = Call(declared.name, actor_of(reader, operation.actor), target, arguments, operation.id)
        return self._context(reader, declared, call, operation.id, facts)

    def _arguments(self, declared: Operation, stored: Mapping[str, Any]) -> BaseModel:
        """The arguments as validated when the operation was called; secret ones are references, as steps want them."""
        hidden = {name: found[0] for name, value in stored.items() if (found := _secret(value))}
        clear = {name: self.secrets.get(reference.key) for name, reference in hidden.items()}
        arguments: BaseModel = declared.arguments.model_validate({**stored, **clear})
        return arguments.model_copy(update=dict(hidden)) if hidden else arguments


@dataclass(frozen=True)
class _Caught:
    """An awaitable whose exception is a result, so that a group waits for the others instead of cancelling them."""

    awaitable: Awaitable[object]

    async def result(self) -> tuple[object, OpenqrmError | None]:
        """What it gave or raised."""
        try:
            return await self.awaitable, None
        except OpenqrmError as error:
            return None, error


def _secret(value: Any) -> list[Secret]:
    if not isinstance(value, dict) or value.get("type") != "secret":
        return []
    return [found for found in deferred(value) if isinstance(found, Secret)]


def actor_of(reader: Reader, name: str) -> Actor:
    """Who called, as far as it still exists; planners may look at the role."""
    if name == SYSTEM.name:
        return SYSTEM
    user = reader.one(User, name=name)
    return Actor(name, user.role, user.id) if user else Actor(name, UserRole.VIEWER)
