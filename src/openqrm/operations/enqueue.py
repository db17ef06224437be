"""Queueing an operation: admission, secrets and the first steps, in the transaction of the call."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from openqrm.operations import audit
from openqrm.operations.arguments import argument_attributes
from openqrm.plugin_api.loading import load
from openqrm.plugin_api.operation import Call, Operation
from openqrm.plugin_api.steps import Change, Plan, Planning, Step
from openqrm.plugin_api.values import MASK, Secret

if TYPE_CHECKING:
    from openqrm.domain.operation import Operation as OperationRecord
    from openqrm.engine.changes import Changes
    from openqrm.engine.journal import Journal
    from openqrm.operations.pipeline import Request
    from openqrm.plugin_api.records import Reader, Writer

DryRun = Callable[[Operation, Call], Sequence[Step]]
"""The engine's dry run: admission and every phase planned from real facts; nothing is stored."""


class Enqueuer:
    """Turns a validated call into a queued operation."""

    def __init__(self, journal: Journal, changes: Changes) -> None:
        self._journal = journal
        self._changes = changes

    def enqueue(
        self, writer: Writer, operation: Operation, call: Call, request: Request, *, admitted: bool = True
    ) -> OperationRecord:
        """Store the operation and its first steps; a conflict in its admission is raised and leaves no trace.

        With `admitted=False` the admission is left to the engine, which tries it again until the conflict is gone.
        """
        row = audit.row(call, request.key).model_copy(
            update={
                "arguments": self._stored(writer, call),
                "forward_only": operation.forward_only,
                "rerun_of": request.rerun_of,
            }
        )
        steps: list[Step] = [*admission(writer, operation, call), *plannings(operation)]
        return self._journal.enqueue(
            writer, row, steps, targets_of(writer, operation, call), changes=self._changes if admitted else None
        )

    def _stored(self, writer: Writer, call: Call) -> dict[str, Any]:
        """The arguments to store: secret ones go to the encrypted store and leave a reference."""
        plain: dict[str, Any] = call.arguments.model_dump(mode="json", exclude_unset=True)
        for name, attr in argument_attributes(type(call.arguments)).items():
            if attr.secret and plain.get(name) is not None:
                key = f"argument-{secrets.token_hex(12)}"
                writer.put_secret(key, str(plain[name]))
                plain[name] = Secret(key=key).model_dump(mode="json")
        return plain


def admission(reader: Reader, operation: Operation, call: Call) -> tuple[Change, ...]:
    """The changes that claim what the operation needs in the moment of the call."""
    if not operation.admit:
        return ()
    plan: Plan = load(operation.admit)(reader, call)
    changes = tuple(step for step in plan.steps if isinstance(step, Change))
    if len(changes) != len(plan.steps):
        raise TypeError(f"{operation.name}: an admission may only have changes of our database")
    return changes


def plannings(operation: Operation) -> tuple[Planning, ...]:
    """One step per phase, which plans the rest when its turn comes."""
    return tuple(
        Planning(name=f"plan-{phase.name}", title=f"Plan: {phase.name.replace('-', ' ')}", phase=phase.name)
        for phase in operation.phases
    )


def targets_of(reader: Reader, operation: Operation, call: Call) -> tuple[str, ...]:
    """What the operation excludes others from, as `entity-id`, its own target first."""
    own = (f"{call.target.entity.name}-{call.target.id}",) if call.target is not None else ()
    further: tuple[str, ...] = load(operation.targets)(reader, call) if operation.targets else ()
    return tuple(dict.fromkeys((*own, *further)))


def shown_body(value: Any) -> Any:
    """A step's data as a person may read it: references to secrets are masked."""
    if isinstance(value, dict):
        if value.get("type") == "secret" and set(value) == set(Secret.model_fields):
            return MASK
        return {name: shown_body(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shown_body(item) for item in value]
    return value
