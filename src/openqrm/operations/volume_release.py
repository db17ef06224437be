"""Taking back what an abandoned operation left of a volume: the access of a machine, and the loan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import ConflictError
from openqrm.domain.operation import UNFINISHED
from openqrm.domain.operation import Operation as OperationRecord
from openqrm.domain.resource import Resource
from openqrm.domain.storage import Storage, Volume
from openqrm.domain.user import UserRole
from openqrm.operations import loans
from openqrm.operations.grants import Access, prefixed
from openqrm.plugin_api.operation import Operation, Phase, needs
from openqrm.plugin_api.steps import Change, Irreversible, Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.domain.lease import Loan
    from openqrm.plugin_api.drivers import Lends
    from openqrm.plugin_api.facts import Fact
    from openqrm.plugin_api.operation import Call, PlanContext
    from openqrm.plugin_api.records import Reader
    from openqrm.plugin_api.steps import Steps

_UNGRANTED = "volume.resize"
"""Borrows a volume to keep others away; no machine is given access."""


def admit(reader: Reader, call: Call) -> Plan:
    """ConflictError when nothing was left behind, or when whoever has it still works."""
    volume = _target(call)
    held = loans.held(reader, volume)
    if not held:
        raise ConflictError(f"volume {volume.name} is lent to nobody", remedy="there is nothing to release")
    for loan in held:
        operation = reader.get(OperationRecord, loan.operation_id)
        if operation.status in UNFINISHED or loan.appliance_id is not None:
            raise ConflictError(
                f"volume {volume.name} is used by operation {operation.id} ({operation.name}), which is "
                f"{operation.status}",
                remedy=f"openqrm operation show {operation.id}",
            )
    return Plan()


def facts(context: PlanContext) -> Sequence[Fact[Any]]:
    """What the export must know of its host to revoke."""
    storage = context.read.get(Storage, _target(context).storage_id)
    return context.drivers.export(storage).facts(context.drivers.context(storage, context.read))


def plan(context: PlanContext) -> Plan:
    """Revoke, return, and let the machine go back to the pool."""
    found = (step for loan in loans.held(context.read, _target(context)) for step in _released(context, loan))
    return Plan(steps=tuple(found))


def _released(context: PlanContext, loan: Loan) -> Steps:
    volume = context.read.get(Volume, loan.volume_id)
    storage = context.read.get(Storage, volume.storage_id)
    machine = context.read.get(Resource, loan.resource_id)
    operation = context.read.get(OperationRecord, loan.operation_id)
    prefix = f"loan-{loan.id}-"
    access = Access.of(context, storage, volume, machine, loan.generation, prefix)
    return (
        *(() if operation.name == _UNGRANTED else _ended(context, loan, access)),
        loans.returned(f"{prefix}return", loan, f"Return volume {volume.name}"),
        _forward(f"{prefix}free", f"{machine.name} is free again", "worker.release", resource_id=machine.id),
    )


def _ended(context: PlanContext, loan: Loan, access: Access) -> Steps:
    """What may be written is revoked, what may be read is reclaimed."""
    if loan.generation:
        return access.revoke(context)
    lender: Lends = access.export  # type: ignore[assignment]  # what was lent is on an export that lends
    found = lender.reclaim(access.place, access.volume, access.location, access.client, context.facts)
    return prefixed(found, access.prefix)


def _forward(name: str, title: str, change: str, **arguments: Any) -> Change:
    undo = Irreversible(reason="a release goes forward")
    return Change(name=name, title=title, change=change, arguments=arguments, undo=undo)


def _target(call: Call | PlanContext) -> Volume:
    assert isinstance(call.target, Volume)  # noqa: S101  # the declaration's target
    return call.target


_HERE = "openqrm.operations.volume_release"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="volume.release",
        title="Release an abandoned volume",
        summary=(
            "Take back the access that an abandoned operation left to a machine. "
            "Make sure first that the machine is off: nothing else proves it."
        ),
        target=Volume,
        permission=needs(UserRole.ADMIN),
        destroys=True,
        admit=f"{_HERE}:admit",
        phases=(Phase("release", plan=f"{_HERE}:plan", facts=f"{_HERE}:facts"),),
        forward_only=True,
    ),
)
