"""Moving an image to another storage: what is claimed in the moment of the call. (The plan is in `image_move_plan`.)

An idle machine copies the files from the old volume into a new one; then the image is in the new one. Until the image
is switched over everything is undone when something fails; from there on the operation only goes forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from openqrm.domain.errors import ConflictError, InvalidError, UnsupportedError
from openqrm.domain.model import Attr, Id, MegaBytes, Name
from openqrm.domain.resource import Resource
from openqrm.domain.storage import Image, Storage, Volume, VolumePhase
from openqrm.operations.restoring import first_generation
from openqrm.operations.storage_types import traits
from openqrm.operations.volume import RECORD, VolumeCreate, record_step
from openqrm.plugin_api.drivers import Cap
from openqrm.plugin_api.operation import Arguments, Operation, Phase
from openqrm.plugin_api.steps import Change, Plan
from openqrm.plugin_api.values import Output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openqrm.domain.model import Record
    from openqrm.operations.storage_types import Traits
    from openqrm.plugin_api.operation import Call
    from openqrm.plugin_api.records import Reader

WORKER, SOURCE_LOAN, TARGET_LOAN = "worker", "borrow-source", "borrow-target"
"""The steps that claim the machine and both volumes; the plan takes their outputs."""


class MoveArguments(Arguments):
    """Where the image goes, and how."""

    to_id: Annotated[Id, Attr("To storage", ref="storage", help="of any type that holds file trees, but not its own")]
    name: Annotated[Name | None, Attr("Name", help="of the new volume; empty: the name of the old one")] = None
    size_mb: Annotated[
        MegaBytes | None, Attr("Size", unit="MB", help="of the new volume; empty: as the old one has")
    ] = None
    resource_id: Annotated[
        Id | None, Attr("Resource", ref="resource", help="the idle machine that copies; empty: any")
    ] = None
    keep_source: Annotated[bool, Attr("Keep the source", help="the old volume stays, as a volume without image")] = (
        False
    )


@dataclass(frozen=True)
class _Side:
    """A storage and what is known of its type."""

    storage: Storage
    kind: Traits


def admit(reader: Reader, call: Call) -> Plan:
    """The new volume's name, an idle machine and both volumes are taken; nobody can start the image from here on.

    InvalidError and UnsupportedError for what can never be; ConflictError and NoCapacityError for what is in the way.
    """
    image, given = _target(call), call.arguments
    volume = reader.get(Volume, image.volume_id)
    _refuse_unknown(reader, Storage, given.to_id, "to_id")
    _refuse_unknown(reader, Resource, given.resource_id, "resource_id")
    source = _side(reader, call.settings, volume.storage_id)
    target = _side(reader, call.settings, given.to_id)
    if volume.phase is not VolumePhase.READY:
        raise ConflictError(f"volume {volume.name} is {volume.phase}, not ready")
    if source.storage.id == target.storage.id:
        raise InvalidError(
            f"image {image.name} is on storage {target.storage.name} already",
            field="to_id",
            remedy=f"for a second one: openqrm volume clone {volume.name} --name NAME",
        )
    for side in (source, target):
        _refuse_unfit(side)
    _refuse_dependants(reader, image, target)
    worker = _worker(source, target, given.resource_id)
    described = volume.model_dump(mode="json", include=set(VolumeCreate.model_fields))
    values = described | {
        "name": given.name or volume.name,
        "storage_id": target.storage.id,
        "size_mb": volume.size_mb if given.size_mb is None else given.size_mb,
        # An image's generations only grow, whichever volume it is in.
        "generation": max(first_generation(reader), volume.generation),
    }
    return Plan(steps=(record_step(values), *_claims(volume, worker)))


def _claims(volume: Volume, worker: int | None) -> tuple[Change, ...]:
    machine = Output(step=WORKER, field="resource_id").model_dump()
    new = Output(step=RECORD, field="id").model_dump()
    return (
        Change(
            name=WORKER,
            title="Take an idle machine that copies",
            change="worker.take",
            arguments={"volume_id": volume.id, "resource_id": worker},
            undo="worker.undo-take",
        ),
        Change(
            name=SOURCE_LOAN,
            title=f"Borrow volume {volume.name}",
            change="loan.take",
            arguments={"volume_id": volume.id, "resource_id": machine, "write": True},
            undo="loan.undo-take",
        ),
        Change(
            name=TARGET_LOAN,
            title="Borrow the new volume",
            change="loan.take",
            arguments={"volume_id": new, "resource_id": machine, "write": True},
            undo="loan.undo-take",
        ),
    )


def _refuse_unknown(reader: Reader, kind: type[Record], record_id: int | None, field: str) -> None:
    if record_id is not None and not reader.find(kind, id=record_id, limit=1):
        raise InvalidError(f"there is no {kind.entity.name} {record_id}", field=field)


def _side(reader: Reader, settings: Mapping[str, Any], storage_id: int) -> _Side:
    storage = reader.get(Storage, storage_id)
    return _Side(storage, traits(settings, storage))


def _refuse_unfit(side: _Side) -> None:
    """What is in a machine's memory is nowhere to be moved, and whole disks are no files."""
    where = f"storage {side.storage.name} ({side.storage.type})"
    if side.kind.in_memory:
        raise UnsupportedError(f"{where} is the memory of machines: nothing stays there", field="to_id")
    if side.kind.agentless:
        raise UnsupportedError(
            f"{where} holds whole disks, no files that could be copied",
            field="to_id",
            remedy="an image of whole disks stays on storages of its type",
        )


def _refuse_dependants(reader: Reader, image: Image, target: _Side) -> None:
    """Images that are filled from this one need a storage that lends it."""
    others = reader.find(Image, install_from_id=image.id, limit=3)
    if others and Cap.LEND not in target.kind.capabilities:
        names = ", ".join(other.name for other in others)
        raise ConflictError(
            f"image {names} is installed from {image.name}, which storage {target.storage.name} "
            f"({target.storage.type}) could not lend",
            field="to_id",
            remedy="move a clone of it, or change what those are installed from",
        )


def _worker(source: _Side, target: _Side, named: int | None) -> int | None:
    """What is in a machine itself can be copied by that machine only."""
    bound = {side.storage.resource_id for side in (source, target) if side.kind.own_machine}
    if len(bound) > 1:
        raise UnsupportedError(
            f"storages {source.storage.name} and {target.storage.name} are in two machines: neither reads the other",
            field="to_id",
            remedy="move the image to an NFS storage first, and from there on",
        )
    own = next(iter(bound), None)
    if own is not None and named not in (None, own):
        raise InvalidError(
            "only the machine that a storage is in can copy from or to it",
            field="resource_id",
            remedy="leave it out: that machine is taken",
        )
    return own if own is not None else named


def targets(reader: Reader, call: Call) -> tuple[str, ...]:
    """The old volume, too."""
    del reader
    return (f"volume-{_target(call).volume_id}",)


def _target(call: Call) -> Image:
    assert isinstance(call.target, Image)  # noqa: S101  # the declaration's target
    return call.target


_HERE = "openqrm.operations.image_move"
_PLANS = "openqrm.operations.image_move_plan"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="image.move",
        title="Move an image",
        summary=(
            "Copy an image's files to a new volume on another storage by an idle machine; the image is there then, "
            "and its old volume is removed unless it is to be kept."
        ),
        target=Image,
        arguments=MoveArguments,
        admit=f"{_HERE}:admit",
        targets=f"{_HERE}:targets",
        phases=(
            Phase("copy", plan=f"{_PLANS}:plan_copy", facts=f"{_PLANS}:copy_facts"),
            Phase("clear", plan=f"{_PLANS}:plan_clear", facts=f"{_PLANS}:clear_facts"),
        ),
        waits=True,
        destroys=True,
        destroys_when={"keep_source": False},
    ),
)
