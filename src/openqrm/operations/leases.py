"""Leases: taken with a resource when an appliance starts, released when its holder is proved gone.

The lease's generation is one above the volume's last. It only grows, so that storage hosts can refuse the past.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.appliance import Appliance
from openqrm.domain.errors import ConflictError, NoCapacityError
from openqrm.domain.lease import Lease, LeaseState, Loan
from openqrm.domain.placement import Placement, place, shortfall
from openqrm.domain.resource import SERVER_ID, Desired, Health, Phase, Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.operations import depending, loans, states
from openqrm.operations.storage_types import traits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openqrm.domain.appliance import Requirements
    from openqrm.plugin_api.changes import ChangeCall
    from openqrm.plugin_api.records import Reader, Writer

_CANDIDATES = 5
"""How many fitting rows one decision holds; the query already sorts the best first."""
_NEAR_MISSES = 5
SYSTEM_MB = 256
"""What a system needs beside a root file system that lies in its memory."""


def acquire(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`appliance_id`: choose and take a resource, take the image's next generation. NoCapacityError, ConflictError."""
    appliance = writer.get(Appliance, int(call.arguments["appliance_id"]))
    image = writer.get(Image, appliance.image_id)
    volume = writer.get(Volume, image.volume_id)
    depending.refuse_holding(writer, appliance)
    _refuse_second_holder(writer, image)
    volume = loans.refuse_lent(writer, volume)
    placement = _placement(writer, _bound(writer, appliance, volume, call.settings))
    resource = placement.chosen
    if resource is None:
        raise NoCapacityError(
            f"no idle resource for appliance {appliance.name}: {placement.text}",
            field="resource_id",
            remedy="switch on or free a machine that fits, relax the requirements, or ask to wait in the queue",
        )
    generation = volume.generation + 1
    lease = writer.insert(
        Lease(
            image_id=image.id,
            resource_id=resource.id,
            appliance_id=appliance.id,
            operation_id=call.operation_id,
            generation=generation,
            held_image=image.id,
            held_resource=resource.id,
            held_appliance=appliance.id,
        )
    )
    writer.update(volume, generation=generation)
    writer.update(resource, desired=Desired.ASSIGNED)
    writer.update(appliance, running_on=resource.id, placement=placement.text[:1000], address=resource.address)
    return {"lease_id": lease.id, "resource_id": resource.id, "generation": generation}


def _bound(writer: Writer, appliance: Appliance, volume: Volume, settings: Mapping[str, Any]) -> Appliance:
    """The appliance with what its image's storage type asks of a machine. ConflictError when another one was named."""
    storage = writer.get(Storage, volume.storage_id)
    kind = traits(settings, storage)
    if kind.in_memory:
        needed = appliance.requirements
        memory = max(needed.memory_mb, volume.size_mb + SYSTEM_MB)
        appliance = appliance.model_copy(update={"requirements": needed.model_copy(update={"memory_mb": memory})})
    if not kind.own_machine:
        return appliance
    if appliance.resource_id not in (None, storage.resource_id):
        owner = writer.get(Resource, storage.resource_id)
        raise ConflictError(
            f"volume {volume.name} is in resource {owner.name} itself: no other can run it",
            field="resource_id",
            remedy=f"openqrm appliance update {appliance.name} --resource-id {owner.name}",
        )
    return appliance.model_copy(update={"resource_id": storage.resource_id})


def _refuse_second_holder(writer: Writer, image: Image) -> None:
    holder = writer.one(Lease, held_image=image.id)
    if holder is not None:
        other = writer.get(Appliance, holder.appliance_id)
        raise ConflictError(
            f"image {image.name} is in use by appliance {other.name}",
            field="image_id",
            remedy=f"stop {other.name} first, or clone the image",
        )


def _placement(writer: Writer, appliance: Appliance) -> Placement:
    if appliance.resource_id is not None:
        return _named(writer, appliance)
    needed = appliance.requirements
    fitting = writer.reserve(
        Resource, order="memory_mb", limit=_CANDIDATES, desired=Desired.IDLE, **_conditions(needed)
    )
    others: Sequence[Resource] = ()
    if len(fitting) < _CANDIDATES:
        seen = {resource.id for resource in fitting}
        idle = writer.find(Resource, order="-memory_mb", limit=_NEAR_MISSES, phase=Phase.IDLE, desired=Desired.IDLE)
        others = [resource for resource in idle if resource.id not in seen and shortfall(needed, resource)]
    if not fitting and not others:
        return Placement(None, f"no machine is idle: {_busy(writer)}")
    return place(needed, [*fitting, *others])


def _busy(reader: Reader) -> str:
    """What the machines are instead of idle, counted: `2 are active and 1 is off`. Closed boxes are none."""
    machines = {"manual": False, "id__ne": SERVER_ID}
    counts = {phase: reader.count(Resource, phase=phase, **machines) for phase in Phase}
    words = [
        f"{count} {'is' if count == 1 else 'are'} {'given away already' if phase is Phase.IDLE else phase}"
        for phase, count in counts.items()
        if count
    ]
    return " and ".join(words) or "none has registered"


def _named(writer: Writer, appliance: Appliance) -> Placement:
    (resource,) = writer.reserve(Resource, id=appliance.resource_id)
    if resource.desired is Desired.ASSIGNED:
        raise ConflictError(f"resource {resource.name} is assigned to another appliance", field="resource_id")
    return place(appliance.requirements, [resource])


def _conditions(needed: Requirements) -> dict[str, Any]:
    conditions: dict[str, Any] = {"phase": Phase.IDLE, "health": Health.OK, "memory_mb__ge": needed.memory_mb}
    if needed.cpus:
        conditions["cpus__ge"] = needed.cpus
    if needed.nics:
        conditions["nic_count__ge"] = needed.nics
    if needed.type:
        conditions["type"] = needed.type
    if needed.group:
        conditions["group"] = needed.group
    return conditions


def release(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`lease_id`: the holder was proved gone. Releasing twice equals releasing once."""
    lease = writer.get(Lease, int(call.arguments["lease_id"]))
    return _free(writer, lease)


def undo_acquire(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """Undo of `lease.acquire`. The generation stays used: it only grows."""
    return _free(writer, writer.get(Lease, int(call.output["lease_id"])))


def _free(writer: Writer, lease: Lease) -> dict[str, Any]:
    if lease.state is LeaseState.RELEASED:
        return {}
    writer.update(lease, state=LeaseState.RELEASED, held_image=None, held_resource=None, held_appliance=None)
    resource = writer.get(Resource, lease.resource_id)
    if resource.desired is Desired.ASSIGNED:
        writer.update(resource, desired=Desired.IDLE)
    appliance = writer.get(Appliance, lease.appliance_id)
    writer.update(appliance, running_on=None, address=None, placement="")
    return {}


def forget_appliance(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`appliance_id`: it goes with what it once held and borrowed; one that is gone already stays gone."""
    appliance_id = int(call.arguments["appliance_id"])
    for lease in writer.find(Lease, appliance_id=appliance_id):
        writer.delete(Lease, lease.id)
    for loan in writer.find(Loan, appliance_id=appliance_id, state=LeaseState.RELEASED):
        writer.delete(Loan, loan.id)
    if writer.find(Appliance, limit=1, id=appliance_id):
        writer.delete(Appliance, appliance_id)
    return {}


def take_resource(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`resource_id`: the leased machine starts to deploy."""
    resource = writer.get(Resource, int(call.arguments["resource_id"]))
    states.apply(writer, resource, "phase", "deploy")
    return {"boot_id": resource.boot_id or ""}


def give_back_resource(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`resource_id`: the machine is on its way back to idle; one that is back already stays so."""
    resource = writer.get(Resource, int(call.arguments["resource_id"]))
    if resource.phase in (Phase.DEPLOYING, Phase.ACTIVE):
        states.apply(writer, resource, "phase", "return")
    return {}
