"""What is on a storage now: volumes found there are recorded, those that are gone are reported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.storage import Storage, Volume, VolumePhase
from openqrm.operations import places
from openqrm.operations.restoring import first_generation
from openqrm.plugin_api.drivers import Cap
from openqrm.plugin_api.operation import Operation, Phase
from openqrm.plugin_api.steps import Change, Irreversible, Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.plugin_api.drivers import StorageContext, VolumeEntry
    from openqrm.plugin_api.operation import PlanContext


def plan_scan(context: PlanContext) -> Plan:
    """Record volumes that are on the storage and not known; report those that are known and gone."""
    storage = _target(context)
    context.drivers.require(storage, Cap.LIST)
    place = context.drivers.context(storage, context.read)
    found = context.drivers.pool(storage).entries(place, context.facts)
    known = {volume.name: volume for volume in context.read.find(Volume, storage_id=storage.id)}
    new = [entry for entry in unclaimed(context, place, found) if entry.name not in known]
    present = {entry.name for entry in found}
    gone = [v for name, v in sorted(known.items()) if name not in present and v.phase is VolumePhase.READY]
    return Plan(
        steps=(
            *(_found(position, storage, entry, first_generation(context.read)) for position, entry in enumerate(new)),
            *(_missing(position, storage, volume) for position, volume in enumerate(gone)),
        )
    )


def unclaimed(context: PlanContext, place: StorageContext, found: Sequence[VolumeEntry]) -> list[VolumeEntry]:
    """What was found without what is another storage's: its pool, what holds that, and what lies in it."""
    taken = [other for _, other in places.others(context.read, context.drivers, place)]
    pool = context.drivers.pool(place.storage)

    def at(entry: VolumeEntry) -> str:
        return pool.location(place, Volume(name=entry.name, storage_id=place.storage.id))

    return [entry for entry in found if not any(places.overlap(at(entry), other) for other in taken)]


def _found(position: int, storage: Storage, entry: VolumeEntry, generation: int) -> Change:
    values = {
        "name": entry.name,
        "storage_id": storage.id,
        "size_mb": entry.size_mb,
        "root_device": entry.root_device,
        "phase": VolumePhase.READY,
        "generation": generation,
    }
    return Change(
        name=f"found-{position}",
        title=f"Record volume {entry.name}",
        change="record.create",
        arguments={"entity": "volume", "values": values},
        undo="record.uncreate",
        undo_arguments={"entity": "volume"},
    )


def _missing(position: int, storage: Storage, volume: Volume) -> Change:
    return Change(
        name=f"gone-{position}",
        title=f"Report that volume {volume.name} is gone",
        change="event.log",
        arguments={
            "text": f"volume {volume.name} is recorded but not on storage {storage.name}",
            "severity": "warning",
            "entity": "volume",
            "id": volume.id,
        },
        undo=Irreversible(reason="an event stays"),
    )


def _target(context: PlanContext) -> Storage:
    assert isinstance(context.target, Storage)  # noqa: S101  # the declaration's target
    return context.target


_HERE = "openqrm.operations.storage_scan"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="storage.scan",
        title="Scan a storage",
        summary="Find the volumes that are on the storage now and record those not known yet.",
        target=Storage,
        phases=(Phase("scan", plan=f"{_HERE}:plan_scan", facts="openqrm.operations.volume:pool_facts"),),
    ),
)
