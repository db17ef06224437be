"""Volumes: made, cloned, snapshot and removed by the pool of their storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from openqrm.domain.errors import ConflictError, NotFoundError, UnsupportedError
from openqrm.domain.model import Attr, MegaBytes
from openqrm.domain.operation import UNFINISHED, OperationTarget, StepRecord
from openqrm.domain.operation import Operation as OperationRecord
from openqrm.domain.storage import Image, Storage, Volume, VolumePhase
from openqrm.operations import capabilities, loans
from openqrm.operations.arguments import creating, given, updating
from openqrm.operations.restoring import first_generation
from openqrm.plugin_api.drivers import Cap, confirmed, sized
from openqrm.plugin_api.operation import Operation, Phase
from openqrm.plugin_api.steps import Change, Command, Irreversible, Plan, Run, Send

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.plugin_api.drivers import Snapshots, StorageContext
    from openqrm.plugin_api.facts import Fact
    from openqrm.plugin_api.operation import Call, PlanContext
    from openqrm.plugin_api.records import Reader, Writer
    from openqrm.plugin_api.steps import Steps


RECORD = "record"
"""The step that makes a volume's row, of the operations that make volumes."""
_MAKERS = ("volume.create", "volume.import", "volume.clone", "volume.snapshot", "volume.grab", "image.move")
_COPY_SECONDS = 3600
"""An image of some gigabytes over a management network."""


VolumeCreate = creating(Volume)
VolumeImport = creating(
    Volume,
    name="VolumeImport",
    archive=(
        Annotated[
            str,
            Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"),
            Attr("Archive", help="of a tar archive or a disk image in the server's shelf directory"),
        ],
        ...,
    ),
)
VolumeClone = creating(Volume, without=("storage_id", "size_mb"), name="VolumeClone")
"""On the storage of its source, and as large."""
VolumeSnapshot = creating(
    Volume,
    without=("storage_id",),
    name="VolumeSnapshot",
    size_mb=(
        Annotated[MegaBytes, Attr("Room", unit="MB", help="for what will differ; 0: enough for everything")],
        0,
    ),
)
VolumeUpdate = updating(Volume, without=("size_mb",))
"""What describes a volume; its size is its pool's to change (`volume.resize`)."""


def record_step(values: dict[str, Any]) -> Change:
    """Make the row of a new volume: its name on the storage is taken."""
    return Change(
        name=RECORD,
        title=f"Record volume {values['name']}",
        change="record.create",
        arguments={"entity": "volume", "values": values},
        undo="record.uncreate",
        undo_arguments={"entity": "volume"},
    )


def admit_create(reader: Reader, call: Call) -> Plan:
    """The name on the storage is taken in the moment of the call."""
    storage = reader.get(Storage, call.arguments.storage_id)
    if isinstance(call.arguments, VolumeImport):
        capabilities.require(call.settings, storage, Cap.FILL)
    values = call.arguments.model_dump(mode="json", exclude={"archive"})
    return Plan(steps=(record_step(values | {"generation": first_generation(reader)}),))


def admit_clone(reader: Reader, call: Call) -> Plan:
    """The clone's name is taken in the moment of the call."""
    return _admit_copy(reader, call, Cap.CLONE, _target(call).size_mb)


def admit_snapshot(reader: Reader, call: Call) -> Plan:
    """The snapshot's name is taken in the moment of the call."""
    return _admit_copy(reader, call, Cap.SNAPSHOT, call.arguments.size_mb)


def _admit_copy(reader: Reader, call: Call, capability: Cap, size_mb: int) -> Plan:
    source = _target(call)
    capabilities.require(call.settings, reader.get(Storage, source.storage_id), capability)
    values = call.arguments.model_dump(mode="json") | {
        "storage_id": source.storage_id,
        "size_mb": size_mb,
        "parent_id": source.id,
        "generation": first_generation(reader),
    }
    return Plan(steps=(record_step(values),))


def _target(call: Call | PlanContext) -> Volume:
    assert isinstance(call.target, Volume)  # noqa: S101  # the declaration's target
    return call.target


def _storage(context: PlanContext) -> Storage:
    if isinstance(context.target, Storage):
        return context.target
    if isinstance(context.target, Volume):
        return context.read.get(Storage, context.target.storage_id)
    return context.read.get(Storage, context.arguments.storage_id)


def pool_facts(context: PlanContext) -> Sequence[Fact[Any]]:
    """What the pool must know of its host."""
    storage = _storage(context)
    place = context.drivers.context(storage, context.read)
    return context.drivers.pool(storage).facts(place)


def _new_volume(context: PlanContext, storage: Storage) -> Volume:
    volume = context.read.one(Volume, storage_id=storage.id, name=context.arguments.name)
    if volume is None:
        raise NotFoundError(f"volume {context.arguments.name} was removed meanwhile")
    return volume


def offered(context: PlanContext, storage: Storage, volume: Volume) -> Steps:
    """The pool has made it: it is ready, of this size and under its root device identifier."""
    place = context.drivers.context(storage, context.read)
    location = context.drivers.pool(storage).location(place, volume)
    device = context.drivers.export(storage).root_device(place, volume, location)
    return (
        Change(
            name="ready",
            title=f"Offer volume {volume.name}",
            change="state.apply",
            arguments={
                "entity": "volume",
                "id": volume.id,
                "event": "created",
                "set": {"root_device": device, "size_mb": sized(volume, place.pool).size_mb},
            },
            undo=Irreversible(reason="the record itself is removed by the undo"),
        ),
    )


def plan_create(context: PlanContext) -> Plan:
    """The pool makes it."""
    storage = _storage(context)
    volume = _new_volume(context, storage)
    place = context.drivers.context(storage, context.read)
    made = context.drivers.pool(storage).create(place, volume, context.facts)
    return Plan(steps=(*made, *offered(context, storage, volume)))


def plan_import(context: PlanContext) -> Plan:
    """The pool makes it, the archive goes to the host, the pool unpacks it."""
    storage = _storage(context)
    context.drivers.require(storage, Cap.FILL)
    volume = _new_volume(context, storage)
    place = context.drivers.context(storage, context.read)
    pool = context.drivers.pool(storage)
    there = f"/var/tmp/openqrm-import-{context.operation_id}"  # noqa: S108 - mode 0600, a name of our own
    archive = Send(
        name="send",
        title=f"Send {context.arguments.archive} to the storage host",
        host=place.host,
        source=f"{context.settings['shelf_dir']}/{context.arguments.archive}",
        path=there,
        timeout=_COPY_SECONDS,
    )
    drop = Run(
        name="drop-archive",
        title="Remove the archive from the storage host",
        host=place.host,
        do=Command(argv=("rm", "-f", "--", there)),
        undo=Irreversible(reason="the archive stays on the server"),
    )
    created = pool.create(place, volume, context.facts)
    filled = pool.fill(place, volume, there, context.facts)
    return Plan(steps=(*created, archive, *filled, drop, *offered(context, storage, volume)))


def plan_clone(context: PlanContext) -> Plan:
    """The pool copies it, copy-on-write where it can."""
    storage = _storage(context)
    context.drivers.require(storage, Cap.CLONE)
    volume = _new_volume(context, storage)
    place = context.drivers.context(storage, context.read)
    pool = context.drivers.pool(storage)
    _refuse_torn(context, storage, place)
    made = pool.clone(place, _target(context), volume, context.facts)
    return Plan(steps=(*made, *offered(context, storage, volume)))


def _refuse_torn(context: PlanContext, storage: Storage, place: StorageContext) -> None:
    """ConflictError for a copy that takes its time, of a volume that somebody writes meanwhile."""
    if not able(context, storage, place, Cap.CLONE_COW):
        loans.refuse_used(context.read, _target(context))


def able(context: PlanContext, storage: Storage, place: StorageContext, capability: Cap) -> bool:
    """Whether the storage's pool can do it on this very host; asked when the pool's facts are there."""
    try:
        context.drivers.require(storage, capability)
    except UnsupportedError:
        return False
    return confirmed(context.drivers.pool(storage), capability, place, context.facts)


def plan_snapshot(context: PlanContext) -> Plan:
    """The pool makes it. UnsupportedError where this very host cannot."""
    storage = _storage(context)
    context.drivers.require(storage, Cap.SNAPSHOT)
    volume = _new_volume(context, storage)
    place = context.drivers.context(storage, context.read)
    pool: Snapshots = context.drivers.pool(storage)  # type: ignore[assignment]  # the capability says so
    source = _target(context)
    made = pool.snapshot(place, source, volume, context.facts)
    whole = volume.model_copy(update={"size_mb": volume.size_mb or source.size_mb})
    return Plan(steps=(*made, *offered(context, storage, whole)))


def update(writer: Writer, call: Call) -> Volume:
    """Change what describes a volume. Nothing on its storage is touched: its name there is for good."""
    return writer.update(_target(call), **given(call.arguments))


def admit_remove(reader: Reader, call: Call) -> Plan:
    """Refused while an image uses the volume or an operation makes or removes it; nobody can use it from here on."""
    volume = _target(call)
    owner = making(reader, volume)
    if owner is not None:
        raise ConflictError(
            f"volume {volume.name} is {volume.phase}: operation {owner.id} ({owner.name}) is {owner.status}",
            remedy=f"wait for it, or openqrm operation show {owner.id}: it may be resumed or abandoned",
        )
    image = reader.one(Image, volume_id=volume.id)
    if image is not None:
        raise ConflictError(
            f"volume {volume.name} holds image {image.name}", remedy=f"openqrm image remove {image.name}"
        )
    loans.refuse_used(reader, volume)
    return Plan(
        steps=(
            Change(
                name="removing",
                title="Take the volume out of use",
                change="state.apply",
                arguments={"entity": "volume", "id": volume.id, "event": "remove"},
                undo=Irreversible(reason="a removal goes forward"),
            ),
        )
    )


def making(reader: Reader, volume: Volume) -> OperationRecord | None:
    """The unfinished operation that makes or removes the volume; None for one that is ready or was left behind."""
    if volume.phase is VolumePhase.READY:
        return None
    removing = reader.find(OperationTarget, target=f"volume-{volume.id}", limit=1)
    if removing:
        return reader.get(OperationRecord, removing[0].operation_id)
    for maker in reader.find(OperationRecord, name__in=_MAKERS, status__in=sorted(UNFINISHED)):
        made = reader.one(StepRecord, operation_id=maker.id, name=RECORD)
        if made is not None and made.output.get("id") == volume.id:
            return maker
    return None


def plan_remove(context: PlanContext) -> Plan:
    """The pool destroys it."""
    return removal(context, _storage(context), _target(context))


def removal(context: PlanContext, storage: Storage, volume: Volume) -> Plan:
    """The pool destroys a volume, whose row goes then; `context` has the facts of its pool."""
    place = context.drivers.context(storage, context.read)
    removed = context.drivers.pool(storage).remove(place, volume, context.facts)
    forget = Change(
        name="forget",
        title=f"Forget volume {volume.name}",
        change="volume.forget",
        arguments={"volume_id": volume.id},
        undo=Irreversible(reason="a removal goes forward"),
    )
    return Plan(steps=(*removed, forget))


_HERE = "openqrm.operations.volume"
_READY = {"phase": frozenset({str(VolumePhase.READY)})}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="volume.create",
        title="Create a volume",
        summary="Make an empty image location on a storage.",
        creates=Volume,
        arguments=VolumeCreate,
        admit=f"{_HERE}:admit_create",
        phases=(Phase("create", plan=f"{_HERE}:plan_create", facts=f"{_HERE}:pool_facts"),),
    ),
    Operation(
        name="volume.import",
        title="Import a volume",
        summary="Make a volume and fill it from a tar archive in the server's shelf directory.",
        creates=Volume,
        arguments=VolumeImport,
        admit=f"{_HERE}:admit_create",
        phases=(Phase("import", plan=f"{_HERE}:plan_import", facts=f"{_HERE}:pool_facts"),),
    ),
    Operation(
        name="volume.clone",
        title="Clone a volume",
        summary="Make a 1:1 copy on the same storage, copy-on-write where the storage can.",
        target=Volume,
        arguments=VolumeClone,
        allowed=_READY,
        admit=f"{_HERE}:admit_clone",
        phases=(Phase("clone", plan=f"{_HERE}:plan_clone", facts=f"{_HERE}:pool_facts"),),
    ),
    Operation(
        name="volume.snapshot",
        title="Make a snapshot of a volume",
        summary="Make a volume on the same storage that holds only what differs from its source.",
        target=Volume,
        arguments=VolumeSnapshot,
        allowed=_READY,
        admit=f"{_HERE}:admit_snapshot",
        phases=(Phase("snapshot", plan=f"{_HERE}:plan_snapshot", facts=f"{_HERE}:pool_facts"),),
    ),
    Operation(
        name="volume.update",
        title="Change a volume",
        summary="Change what describes a volume; nothing on its storage is touched.",
        target=Volume,
        arguments=VolumeUpdate,
        act=f"{_HERE}:update",
    ),
    Operation(
        name="volume.remove",
        title="Remove a volume",
        summary="Destroy a volume and its data.",
        target=Volume,
        destroys=True,
        admit=f"{_HERE}:admit_remove",
        phases=(Phase("remove", plan=f"{_HERE}:plan_remove", facts=f"{_HERE}:pool_facts"),),
        forward_only=True,
    ),
)
