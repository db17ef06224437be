"""Between stored records and the core's frozen state: read an operation, write back what a decision changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from openqrm.domain.operation import Operation, OperationStatus, OperationTarget, StepRecord, StepStatus
from openqrm.engine.state import OperationState, StepState
from openqrm.plugin_api import steps as declared
from openqrm.plugin_api.values import Output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from openqrm.plugin_api.records import Reader, Writer
    from openqrm.plugin_api.steps import Step

SPACING = 10_000
"""Between the positions of steps known from the start, so that planned ones fit in without moving any."""

_FINISHED = frozenset({OperationStatus.DONE, OperationStatus.FAILED, OperationStatus.ABANDONED})
_RESTS = _FINISHED | {OperationStatus.ATTENTION}
_ENDED = frozenset({StepStatus.DONE, StepStatus.UNDONE, StepStatus.FAILED, StepStatus.STUCK})
_STARTED = frozenset({StepStatus.ACTING, StepStatus.UNDOING})
_KEPT = ("status", "attempts", "not_before", "output", "error")


@dataclass(frozen=True)
class Work:
    """An operation with its steps in order, as stored."""

    operation: Operation
    steps: tuple[StepRecord, ...]

    @cached_property
    def state(self) -> OperationState:
        """What the core decides on."""
        return state_of(self.operation, self.steps)

    @cached_property
    def outputs(self) -> Mapping[str, Mapping[str, Any]]:
        """What the steps made, by step name."""
        return {step.name: step.output for step in self.steps}

    def record(self, name: str) -> StepRecord:
        """A step's record."""
        return next(step for step in self.steps if step.name == name)

    def step(self, name: str) -> Step:
        """The step itself."""
        return declared.load(self.record(name).body)


def load(reader: Reader, operation: Operation) -> Work:
    """An operation with its steps."""
    return Work(operation, tuple(reader.find(StepRecord, order="position", operation_id=operation.id)))


def record_of(step: Step, operation_id: int, position: int) -> StepRecord:
    """A step as it is stored."""
    return StepRecord(
        operation_id=operation_id,
        position=position,
        name=step.name,
        kind=step.kind,
        version=step.version,
        title=step.title,
        body=step.model_dump(mode="json"),
    )


def state_of(operation: Operation, records: Sequence[StepRecord]) -> OperationState:
    """The core's view of an operation."""
    used = {value.step for record in records for value in declared.deferred(record.body) if isinstance(value, Output)}
    return OperationState(
        id=operation.id,
        name=operation.name,
        status=operation.status,
        steps=tuple(step_state(record, needed=record.name in used) for record in records),
        error=operation.error,
        cancelled=operation.cancel_requested,
        forward_only=operation.forward_only,
        since=operation.created_at,
        not_before=operation.not_before,
    )


def step_state(record: StepRecord, *, needed: bool) -> StepState:
    """The core's view of a step.

    A step whose output is needed is acted again after a crash even if it can be verified: verifying brings no output.
    """
    body, kind = record.body, record.kind
    undo = body.get("undo")
    verifiable = body.get("verify") is not None and body.get("parse") != "json" and not needed
    return StepState(
        name=record.name,
        title=record.title,
        status=record.status,
        attempts=record.attempts,
        not_before=record.not_before,
        output=record.output,
        error=record.error,
        atomic=kind == "change",
        inert=kind == "planning" or (kind == "wait" and not body.get("undo_condition")),
        prepares=kind == "write",
        verifiable=verifiable,
        irreversible=str(undo["reason"]) if isinstance(undo, dict) and "reason" in undo else None,
    )


def save(writer: Writer, work: Work, state: OperationState, planned: Sequence[Step] = ()) -> Work:
    """Store what differs between the recorded work and `state`; `planned` are the bodies of new steps."""
    known = {record.name: record for record in work.steps}
    new = {step.name: step for step in planned}
    records: list[StepRecord] = []
    for step in state.steps:
        record = known.get(step.name)
        if record is None:
            record = record_of(new[step.name], work.operation.id, records[-1].position + 1)
            records.append(writer.insert(record.model_copy(update=_step_changes(record, step, writer.now))))
            continue
        changes = _step_changes(record, step, writer.now)
        records.append(writer.update(record, **changes) if changes else record)
    operation = work.operation
    changes = _operation_changes(operation, state, records, writer.now)
    if changes:
        operation = writer.update(operation, **changes)
    if operation.status in _FINISHED:
        _clean_up(writer, operation, records)
    saved = Work(operation, tuple(records))
    doubts = {step.name: step.doubt for step in state.steps}
    if any(doubts.values()):
        # Doubt is not stored: it is what a claim finds out. It has to survive between decisions of one controller.
        steps = tuple(replace(step, doubt=doubts[step.name]) for step in saved.state.steps)
        saved.__dict__["state"] = replace(saved.state, steps=steps)
    return saved


def _step_changes(record: StepRecord, step: StepState, now: datetime) -> dict[str, Any]:
    changes: dict[str, Any] = {
        name: getattr(step, name) for name in _KEPT if getattr(step, name) != getattr(record, name)
    }
    if "status" in changes:
        if step.status in _STARTED or (step.status is StepStatus.DONE and record.started_at is None):
            changes |= {"started_at": now}
        changes |= {"finished_at": now if step.status in _ENDED else None}
    return changes


def _operation_changes(
    operation: Operation, state: OperationState, records: Sequence[StepRecord], now: datetime
) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if state.progress != operation.progress and state.status is not OperationStatus.UNDOING:
        changes["progress"] = state.progress if state.status is not OperationStatus.FAILED else operation.progress
    if state.error != operation.error:
        changes["error"] = state.error
    if state.not_before != operation.not_before:
        changes["not_before"] = state.not_before
    if state.not_before is not None:
        changes["owner"] = None
    if state.status is operation.status:
        return changes
    changes["status"] = state.status
    if operation.started_at is None:
        changes["started_at"] = now
    if state.status in _RESTS:
        changes["owner"] = None
    if state.status in _FINISHED:
        changes["finished_at"] = now
    if state.status is OperationStatus.DONE:
        made = {each.name: dict(each.output) for each in records if each.kind in ("change", "call") and each.output}
        changes["result"] = made
    return changes


def _clean_up(writer: Writer, operation: Operation, records: Sequence[StepRecord]) -> None:
    """A finished operation excludes nobody, and what it kept for an undo is forgotten."""
    for target in writer.find(OperationTarget, operation_id=operation.id):
        writer.delete(OperationTarget, target.id)
    for record in records:
        if record.kind == "write" and record.output.get("previous"):
            writer.drop_secret(previous_key(operation.id, record.name))


def previous_key(operation_id: int, step: str) -> str:
    """The secret that holds what a `Write` step replaced, until its operation is finished."""
    return f"operation-{operation_id}/{step}/previous"
