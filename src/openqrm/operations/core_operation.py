"""Operations on operations: cancel, resume, abandon, run again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.errors import ConflictError
from openqrm.domain.operation import UNFINISHED, Operation, OperationStatus
from openqrm.domain.user import UserRole
from openqrm.engine.core import advance
from openqrm.engine.messages import Abandon, Cancel, Resume
from openqrm.engine.work import load, save
from openqrm.operations.pipeline import Request
from openqrm.plugin_api.operation import Operation as Declaration
from openqrm.plugin_api.operation import needs

if TYPE_CHECKING:
    from openqrm.engine.messages import Decision
    from openqrm.operations.pipeline import CoreCall
    from openqrm.plugin_api.operation import Call
    from openqrm.plugin_api.records import Writer


def cancel(writer: Writer, call: Call) -> Operation:
    """Its controller stops it at the next step and undoes what was done; ConflictError when it is too late."""
    operation = _target(call)
    advance(load(writer, operation).state, Cancel(), writer.now)
    return writer.update(operation, cancel_requested=True)


def resume(writer: Writer, call: Call) -> Operation:
    """The cause is mended: the step that stuck is tried again."""
    work = load(writer, _target(call))
    decision = advance(work.state, Resume(), writer.now)
    _tell(writer, work.operation, decision)
    return save(writer, work, decision.state).operation


def abandon(writer: Writer, call: Call) -> Operation:
    """A human cleans up what remains; the operation holds nothing any more."""
    work = load(writer, _target(call))
    decision = advance(work.state, Abandon(), writer.now)
    _tell(writer, work.operation, decision)
    return save(writer, work, decision.state).operation


def rerun(writer: Writer, call: CoreCall) -> Operation:
    """The same call anew, in the name of who asks; ConflictError while the first one is not finished."""
    del writer
    operation = _target(call)
    if operation.status in UNFINISHED:
        raise ConflictError(
            f"operation {operation.id} is {operation.status}", remedy="wait for it, cancel, resume or abandon it"
        )
    return call.again(
        Request(operation.name, call.actor, operation.target_id, operation.arguments, rerun_of=operation.id)
    )


def _tell(writer: Writer, operation: Operation, decision: Decision) -> None:
    for said in decision.raised:
        writer.event(said.text, severity=said.severity, source="engine", about=operation, **dict(said.data))


def _target(call: Call) -> Operation:
    assert isinstance(call.target, Operation)  # noqa: S101  # the declaration's target
    return call.target


_HERE = "openqrm.operations.core_operation"
_ATTENTION = {"status": frozenset({str(OperationStatus.ATTENTION)})}

OPERATIONS: tuple[Declaration, ...] = (
    Declaration(
        name="operation.cancel",
        title="Cancel an operation",
        summary="Stop an operation at its next step and undo what it did",
        target=Operation,
        act=f"{_HERE}:cancel",
    ),
    Declaration(
        name="operation.resume",
        title="Resume an operation",
        summary="Go on with an operation that needs attention, after its cause was mended",
        target=Operation,
        allowed=_ATTENTION,
        act=f"{_HERE}:resume",
    ),
    Declaration(
        name="operation.abandon",
        title="Abandon an operation",
        summary="Leave what remains of an operation that needs attention to a human",
        target=Operation,
        allowed=_ATTENTION,
        destroys=True,
        permission=needs(UserRole.ADMIN),
        act=f"{_HERE}:abandon",
    ),
    Declaration(
        name="operation.rerun",
        title="Run an operation again",
        summary="Ask for the same operation with the same arguments again",
        target=Operation,
        creates=Operation,
        act=f"{_HERE}:rerun",
    ),
)
