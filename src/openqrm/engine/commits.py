"""One journal transaction: an event goes in, `Change` steps that follow act inside it, the decision is stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from openqrm.domain.errors import UnavailableError
from openqrm.domain.event import Severity
from openqrm.engine.core import advance
from openqrm.engine.messages import Act, Command, Decision, Raise, Succeeded, Undo
from openqrm.engine.work import Work, save
from openqrm.plugin_api import steps as declared

if TYPE_CHECKING:
    from openqrm.domain.operation import Operation
    from openqrm.engine.changes import Changes
    from openqrm.engine.execution import Outcome
    from openqrm.engine.state import OperationState, Policy
    from openqrm.plugin_api.records import Writer
    from openqrm.plugin_api.steps import Change, Step

BATCH = 100
"""How many `Change` steps one transaction executes at most."""


class ChangeFailedError(Exception):
    """A change raised: its transaction is rolled back, and the failure is recorded by another one."""

    def __init__(self, step: str, cause: Exception) -> None:
        super().__init__(f"change {step}: {cause}")
        self.step = step
        self.cause = cause


@dataclass(frozen=True)
class Commit:
    """What one transaction shall do. Run again from the start when the transaction has to be."""

    work: Work
    changes: Changes
    policy: Policy
    outcome: Outcome | None = None
    command: Command | None = None
    batch: int = BATCH

    def __call__(self, writer: Writer, operation: Operation) -> tuple[Work, Decision]:
        """The work as stored, and what follows. ChangeFailedError."""
        work = replace(self.work, operation=operation)
        # Whether it may still be undone is asked anew each time: a change may have said that it no longer can.
        state = replace(self.work.state, cancelled=operation.cancel_requested, forward_only=operation.forward_only)
        raised: list[Raise] = []
        decision = Decision(state, self.command)
        if self.outcome is not None:
            if self.outcome.keep is not None:
                writer.put_secret(*self.outcome.keep)
            decision = advance(state, self.outcome.event, writer.now, self.policy)
            raised += decision.raised
        for _ in range(self.batch):
            change = self._change(decision)
            if change is None:
                break
            decision = self._apply(writer, change, decision)
            raised += decision.raised
        saved = save(writer, work, decision.state, self.outcome.planned if self.outcome else ())
        for entry in raised:
            tell(writer, saved.operation, entry)
        return saved, decision

    def _change(self, decision: Decision) -> Change | None:
        """The change to execute next in this transaction, if that is what follows."""
        if not isinstance(decision.command, Act | Undo):
            return None
        name = decision.command.step
        if not decision.state.step(name).atomic:
            return None
        step: Step | None = next(
            (each for each in (self.outcome.planned if self.outcome else ()) if each.name == name), None
        )
        step = step or self.work.step(name)
        return step if isinstance(step, declared.Change) else None

    def _apply(self, writer: Writer, step: Change, decision: Decision) -> Decision:
        state = decision.state
        outputs = _outputs(state)
        try:
            if isinstance(decision.command, Act):
                event = Succeeded(self.changes.do(writer, step, state.id, outputs))
            else:
                self.changes.undo(writer, step, state.id, outputs)
                event = Succeeded()
        except UnavailableError:
            raise
        except Exception as error:
            raise ChangeFailedError(step.name, error) from error
        return advance(state, event, writer.now, self.policy)


def _outputs(state: OperationState) -> dict[str, dict[str, object]]:
    return {step.name: dict(step.output) for step in state.steps}


def tell(writer: Writer, operation: Operation, entry: Raise) -> None:
    """Log an event of an operation; a failure says how to run it again."""
    data = dict(entry.data)
    if entry.severity is Severity.ERROR:
        data["rerun"] = {
            "operation": operation.name,
            "target_kind": operation.target_kind,
            "target_id": operation.target_id,
            "arguments": operation.arguments,
        }
    text = f"{entry.text} ({operation.target_name})" if operation.target_name else entry.text
    writer.event(text, severity=entry.severity, source="engine", about=operation, actor=operation.actor, **data)
