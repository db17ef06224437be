"""A controller for tests: the real runner and journal over a given database and fake hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openqrm.domain.operation import Operation, OperationStatus
from openqrm.engine.changes import Changes, Conditions
from openqrm.engine.core import DEFAULT
from openqrm.engine.execution import Ports
from openqrm.engine.journal import RUNNABLE, Journal, RecordJournal
from openqrm.engine.notifier import Notifier
from openqrm.engine.runner import Runner
from openqrm.plugin_api.calls import CallContext
from openqrm.plugin_api.steps import Plan

if TYPE_CHECKING:
    from openqrm.engine.ports import Database, Hosts
    from openqrm.engine.state import Policy
    from openqrm.engine.work import Work
    from openqrm.plugin_api.changes import ChangeFunction, ConditionFunction
    from openqrm.plugin_api.steps import Step

Planner = Callable[[Operation, str], Awaitable[Plan]]


async def plans_nothing(operation: Operation, phase: str) -> Plan:
    """A planner for operations whose steps are all given."""
    del operation, phase
    return Plan()


@dataclass(frozen=True)
class StoredSecrets:
    """Secrets of a database whose readers have `get_secret`."""

    database: Any

    def get(self, key: str) -> str:
        """The secret; NotFoundError."""
        with self.database.read() as reader:
            text: str = reader.get_secret(key)
            return text


@dataclass
class Site:
    """One database, its hosts and what operations can do there; any number of controllers work on it."""

    database: Database
    hosts: Hosts
    changes: Mapping[str, ChangeFunction] = field(default_factory=dict)
    conditions: Mapping[str, ConditionFunction] = field(default_factory=dict)
    plan: Planner = plans_nothing
    journal: Journal = field(init=False)
    notifier: Notifier = field(default_factory=Notifier)
    policy: Policy = DEFAULT
    directory: Path = Path("/nonexistent")
    make_journal: Callable[[Database], Journal] = RecordJournal

    def __post_init__(self) -> None:
        self.journal = self.make_journal(self.database)
        listen = getattr(self.database, "on_commit", None)
        if listen is not None:
            listen(lambda commit: self.notifier.notify(commit.touched))

    def ports(self, **instead: Any) -> Ports:
        """The ports of a controller; `instead` replaces some."""
        given: dict[str, Any] = {
            "database": self.database,
            "hosts": self.hosts,
            "changes": Changes(self.changes),
            "conditions": Conditions(self.conditions),
            "plan": self.plan,
            "secrets": StoredSecrets(self.database),
            "call_context": self._context,
            "notifier": self.notifier,
        }
        return Ports(**(given | instead))

    def _context(self, function: str, operation_id: int, step: str, epoch: int) -> CallContext:
        del function
        return CallContext(operation_id, step, epoch, self.database.read, self.directory)

    def runner(self, *, journal: Journal | None = None, **options: Any) -> Runner:
        """A controller. Blocking calls are executed in place unless `threads` says otherwise."""
        instead: dict[str, Any] = options.pop("ports", {})
        given: dict[str, Any] = {"threads": 0, "policy": self.policy, **options}
        return Runner(self.ports(**instead), journal or self.journal, **given)

    def enqueue(
        self, steps: Sequence[Step], *, name: str = "test.run", targets: Sequence[str] = (), **fields: Any
    ) -> Operation:
        """Store an operation; leading changes are executed at once."""
        with self.database.write() as writer:
            operation = Operation(name=name, **fields)
            return self.journal.enqueue(writer, operation, steps, targets, changes=Changes(self.changes))

    def work(self, operation_id: int) -> Work:
        """An operation as it is now."""
        return self.journal.load(operation_id)

    def unfinished(self) -> int:
        """How many operations still have work for a controller."""
        with self.database.read() as reader:
            return reader.count(Operation, status__in=list(RUNNABLE))

    async def settle(self, *, seconds: float = 86_400) -> None:
        """Until no operation has work for a controller. TimeoutError."""
        async with asyncio.timeout(seconds):
            with self.notifier.listening() as wakeup:
                while self.unfinished():
                    await wakeup.wait(5)

    async def run(self, **options: Any) -> None:
        """A controller from start to stop, until everything is settled."""
        runner = self.runner(**options)
        await runner.start()
        try:
            await self.settle()
        finally:
            await runner.stop()

    def status(self, operation_id: int) -> OperationStatus:
        """Where an operation is; NotFoundError."""
        return self.work(operation_id).operation.status
