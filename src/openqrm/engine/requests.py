"""What a human may ask of an operation under way: cancel, resume, abandon. Each in the caller's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.errors import ConflictError, UnreachableError
from openqrm.domain.operation import Operation, OperationStatus, StepRecord, StepStatus
from openqrm.engine.commits import tell
from openqrm.engine.core import advance
from openqrm.engine.journal import RUNNABLE
from openqrm.engine.messages import Abandon, Resume
from openqrm.engine.work import load, save

if TYPE_CHECKING:
    from datetime import datetime

    from openqrm.plugin_api.records import Writer


def cancel(writer: Writer, operation_id: int) -> Operation:
    """Ask that a queued or running operation be undone; its controller sees it at its next journal write.

    One that only goes forward is not undone: if it waits for a host that is away, it needs attention at its next try.
    ConflictError for one that is over, or that goes forward and waits for nobody.
    """
    operation = _held(writer, operation_id)
    if operation.status not in RUNNABLE:
        raise ConflictError(f"operation {operation_id} is {operation.status}: nothing to cancel")
    if operation.forward_only and not any(_away(step) for step in load(writer, operation).steps):
        raise ConflictError(f"{operation.name} only goes forward; it cannot be cancelled", remedy="let it finish")
    # One that waits for a conflict to go away need not wait out its pause.
    waits = operation.not_before if operation.status is not OperationStatus.QUEUED else None
    return writer.update(operation, cancel_requested=True, not_before=waits)


def _away(step: StepRecord) -> bool:
    return step.status is StepStatus.ACTING and (step.error or {}).get("code") == UnreachableError.code


def resume(writer: Writer, operation_id: int) -> Operation:
    """Someone mended what an undo met (or a step that only goes forward): it is tried again, with fresh tries."""
    operation = _held(writer, operation_id)
    if operation.forward_only and operation.cancel_requested:
        writer.update(operation, cancel_requested=False)
    return _decided(writer, operation_id, Resume())


def abandon(writer: Writer, operation_id: int) -> Operation:
    """Someone cleans up what remains by hand: the operation ends, and what it excluded is free."""
    return _decided(writer, operation_id, Abandon())


def _held(writer: Writer, operation_id: int) -> Operation:
    held = writer.reserve(Operation, id=operation_id)
    return held[0] if held else writer.get(Operation, operation_id)


def _decided(writer: Writer, operation_id: int, event: Resume | Abandon) -> Operation:
    work = load(writer, _held(writer, operation_id))
    now: datetime = writer.now
    decision = advance(work.state, event, now)
    saved = save(writer, work, decision.state)
    for entry in decision.raised:
        tell(writer, saved.operation, entry)
    return saved.operation
