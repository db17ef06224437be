"""Loans: a machine may use a volume for an operation, to read it or to write it, while no appliance may write it.

Loans and leases exclude each other through the volume's row: whoever takes one holds that row first, so that two which
are taken at the same moment see each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.appliance import Appliance
from openqrm.domain.errors import ConflictError
from openqrm.domain.lease import Lease, LeaseState, Loan
from openqrm.domain.operation import Operation
from openqrm.domain.storage import Image, Volume, VolumePhase
from openqrm.plugin_api.steps import Change, Irreversible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.plugin_api.changes import ChangeCall, ChangeFunction
    from openqrm.plugin_api.records import Reader, Writer
    from openqrm.plugin_api.values import Output

_NAMED = 3
"""How many of those in the way a message names."""


def readers(volume_id: int) -> str:
    """What those share as a target who grant machines to read a volume or end it, beside whatever else works on it.

    Not the volume itself: its pool may clone it meanwhile. Who sets a whole volume's access right needs both.
    """
    return f"volume-{volume_id}-readers"


def take(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`volume_id`, `resource_id`, `write`, optional `appliance_id`; output `loan_id` and `generation` (0: to read).

    To read: refused while an appliance holds a lease on the volume's image, or a loan to write it is held. To write:
    refused while anybody may use it; it takes the volume's next generation. Taken again by the same operation, it is
    the same loan. ConflictError.
    """
    arguments = call.arguments
    volume_id, resource_id = int(arguments["volume_id"]), int(arguments["resource_id"])
    write = bool(arguments["write"])
    volume = _held_row(writer, volume_id)
    present = held(writer, volume)
    for loan in present:
        if (loan.operation_id, loan.resource_id, loan.generation > 0) == (call.operation_id, resource_id, write):
            return {"loan_id": loan.id, "generation": loan.generation}
    _refuse_unfit(volume, write=write)
    refuse_leased(writer, volume)
    _refuse_loans(writer, volume, [loan for loan in present if write or loan.generation])
    generation = volume.generation + 1 if write else 0
    if write:
        writer.update(volume, generation=generation)
    loan = writer.insert(
        Loan(
            volume_id=volume_id,
            resource_id=resource_id,
            operation_id=call.operation_id,
            appliance_id=arguments.get("appliance_id"),
            generation=generation,
            written=volume_id if write else None,
        )
    )
    return {"loan_id": loan.id, "generation": generation}


def give_back(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`loan_id`: its access was taken back. One that was returned, or is gone since, stays so."""
    for loan in writer.find(Loan, id=int(call.arguments["loan_id"]), state=LeaseState.HELD):
        writer.update(loan, state=LeaseState.RELEASED, written=None)
    return {}


def undo_take(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """Undo of `loan.take`: it never was. The generation stays used: it only grows."""
    for loan in writer.find(Loan, id=int(call.output["loan_id"])):
        writer.delete(Loan, loan.id)
    return {}


def returned(name: str, loan: Loan | Output, title: str = "Return what was borrowed") -> Change:
    """The step that returns a loan, or the one whose id an earlier step gave, when its access was taken back."""
    return Change(
        name=name,
        title=title,
        change="loan.return",
        arguments={"loan_id": loan.id if isinstance(loan, Loan) else loan.model_dump()},
        undo=Irreversible(reason="access that was taken back is granted anew, under a new loan"),
    )


def held(reader: Reader, volume: Volume) -> Sequence[Loan]:
    """The loans of a volume that are not returned."""
    return reader.find(Loan, volume_id=volume.id, state=LeaseState.HELD)


def refuse_lent(writer: Writer, volume: Volume) -> Volume:
    """ConflictError while a loan of the volume is held. Returns the volume as it is now, its row held until the end."""
    present = _held_row(writer, volume.id)
    _refuse_loans(writer, present, held(writer, present))
    return present


def refuse_used(reader: Reader, volume: Volume) -> None:
    """ConflictError while any machine may use the volume: an appliance's lease, or a loan."""
    refuse_leased(reader, volume)
    _refuse_loans(reader, volume, held(reader, volume))


def refuse_leased(reader: Reader, volume: Volume) -> None:
    """ConflictError while an appliance holds a lease on the volume's image."""
    image = reader.one(Image, volume_id=volume.id)
    lease = reader.one(Lease, held_image=image.id) if image else None
    if image is not None and lease is not None:
        appliance = reader.get(Appliance, lease.appliance_id)
        raise ConflictError(
            f"image {image.name} on volume {volume.name} is in use by appliance {appliance.name}",
            remedy=f"stop {appliance.name} first, or clone the image",
        )


def forget_volume(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`volume_id`: it goes with its loans that are over; one that is gone already stays gone. ConflictError."""
    volume_id = int(call.arguments["volume_id"])
    for volume in writer.find(Volume, id=volume_id):
        _refuse_loans(writer, volume, held(writer, volume))
        for loan in writer.find(Loan, volume_id=volume_id):
            writer.delete(Loan, loan.id)
        writer.delete(Volume, volume_id)
    return {}


def users(reader: Reader, loans: Sequence[Loan]) -> str:
    """The operations that hold them, as a message names them."""
    numbers = list(dict.fromkeys(loan.operation_id for loan in loans))[:_NAMED]
    return ", ".join(f"{number} ({reader.get(Operation, number).name})" for number in numbers)


def _held_row(writer: Writer, volume_id: int) -> Volume:
    """The volume; its row is this transaction's until the end. NotFoundError."""
    found = writer.reserve(Volume, id=volume_id)
    return found[0] if found else writer.get(Volume, volume_id)


def _refuse_loans(reader: Reader, volume: Volume, loans: Sequence[Loan]) -> None:
    if loans:
        does = "written" if any(loan.generation for loan in loans) else "read"
        raise ConflictError(
            f"volume {volume.name} is being {does} by operation {users(reader, loans)}",
            remedy=f"wait for it: openqrm operation show {loans[0].operation_id}",
        )


def _refuse_unfit(volume: Volume, *, write: bool) -> None:
    """A new volume is written before it is offered; nothing else is lent before it is ready."""
    fit = (VolumePhase.READY, VolumePhase.CREATING) if write else (VolumePhase.READY,)
    if volume.phase not in fit:
        raise ConflictError(f"volume {volume.name} is {volume.phase}", remedy="wait until it is ready")


LOAN_CHANGES: dict[str, ChangeFunction] = {
    "loan.take": take,
    "loan.return": give_back,
    "loan.undo-take": undo_take,
    "volume.forget": forget_volume,
}
