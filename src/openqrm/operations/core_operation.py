"""Operations on operations: cancel, resume, abandon, run again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.appliance import Appliance, ApplianceDesired, AppliancePhase
from openqrm.domain.errors import ConflictError
from openqrm.domain.event import Severity
from openqrm.domain.lease import Lease, LeaseState, Loan
from openqrm.domain.operation import UNFINISHED, Operation, OperationStatus
from openqrm.domain.resource import Resource
from openqrm.domain.storage import Volume
from openqrm.domain.user import UserRole
from openqrm.engine import requests
from openqrm.operations import states
from openqrm.operations.pipeline import Request
from openqrm.plugin_api.operation import Operation as Declaration
from openqrm.plugin_api.operation import needs

if TYPE_CHECKING:
    from openqrm.operations.pipeline import CoreCall
    from openqrm.plugin_api.operation import Call
    from openqrm.plugin_api.records import Writer


def cancel(writer: Writer, call: CoreCall) -> Operation:
    """Its controller stops it at the next step and undoes what was done; ConflictError when it is too late."""
    call.permit(_target(call))
    return requests.cancel(writer, _target(call).id)


def resume(writer: Writer, call: CoreCall) -> Operation:
    """The cause is mended: the step that stuck is tried again."""
    call.permit(_target(call))
    return requests.resume(writer, _target(call).id)


def abandon(writer: Writer, call: Call) -> Operation:
    """A human cleans up what remains; the operation holds nothing any more."""
    abandoned = requests.abandon(writer, _target(call).id)
    if abandoned.target_kind == Appliance.entity.name and abandoned.target_id is not None:
        _leave_appliance(writer, abandoned.target_id)
    _leave_loans(writer, abandoned)
    return abandoned


def _leave_loans(writer: Writer, abandoned: Operation) -> None:
    """Volumes stay with the machine that has them: nobody has proved that it no longer uses them."""
    for loan in writer.find(Loan, operation_id=abandoned.id, appliance_id__null=True, state=LeaseState.HELD):
        volume, machine = writer.get(Volume, loan.volume_id), writer.get(Resource, loan.resource_id)
        text = (
            f"volume {volume.name} is still lent to {machine.name}: make sure that machine is off, "
            f"then run: openqrm volume release {volume.id}"
        )
        writer.event(text, severity=Severity.WARNING, source="operations", about=volume)


def _leave_appliance(writer: Writer, appliance_id: int) -> None:
    """It counts as stopped. It keeps its lease: nobody has proved that its machine no longer writes the image."""
    appliance = writer.one(Appliance, id=appliance_id)
    if appliance is None or appliance.phase in (AppliancePhase.STOPPED, AppliancePhase.RUNNING):
        return
    states.apply(writer, appliance, "phase", "abandoned")
    writer.update(writer.get(Appliance, appliance_id), desired=ApplianceDesired.STOPPED)
    if writer.count(Lease, appliance_id=appliance_id, state=LeaseState.HELD):
        text = (
            f"{appliance.name} still holds its image and machine: make sure the machine is off, "
            f"then run: openqrm appliance release {appliance.name}"
        )
        writer.event(text, severity=Severity.WARNING, source="operations", about=appliance)


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
