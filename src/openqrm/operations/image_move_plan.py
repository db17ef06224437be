"""How an image is moved: a new volume, access for the machine that copies, the switch; then the old volume goes.

Nothing is given away before it is sure that the machine no longer uses it: it said so, booted anew, is off, or is
lost and both storages can prove that its access is revoked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import ConflictError
from openqrm.domain.lease import Loan
from openqrm.domain.resource import Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.operations import loans
from openqrm.operations.grants import Access, prefixed
from openqrm.operations.volume import able, offered, removal
from openqrm.operations.workers import TRANSFER
from openqrm.plugin_api.drivers import Cap
from openqrm.plugin_api.steps import Change, Irreversible, Plan, Wait
from openqrm.plugin_api.values import Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.plugin_api.facts import Fact
    from openqrm.plugin_api.operation import PlanContext
    from openqrm.plugin_api.steps import Steps

COPY_SECONDS = 24 * 3600
"""A large image over a slow network."""
_BACK_SECONDS = 900
"""Firmware and a large server's memory test take minutes."""
_SWITCHED = Irreversible(reason="the image is in its new volume")


@dataclass(frozen=True)
class _Side:
    """A volume that the machine has borrowed, and its storage."""

    loan: Loan
    volume: Volume
    storage: Storage
    access: Access

    @classmethod
    def of(cls, context: PlanContext, loan: Loan, machine: Resource, prefix: str) -> _Side:
        volume = context.read.get(Volume, loan.volume_id)
        storage = context.read.get(Storage, volume.storage_id)
        access = Access.of(context, storage, volume, machine, loan.generation, prefix)
        return cls(loan, volume, storage, access)


class _Move:
    """Everything a move is about, looked up once per planning."""

    def __init__(self, context: PlanContext) -> None:
        assert isinstance(context.target, Image)  # noqa: S101  # the declaration's target
        self.image = context.read.get(Image, context.target.id)
        # Borrowed in the admission, the old volume first.
        source, target = context.read.find(Loan, operation_id=context.operation_id, limit=2)
        self.machine = context.read.get(Resource, source.resource_id)
        self.source = _Side.of(context, source, self.machine, "from-")
        self.target = _Side.of(context, target, self.machine, "to-")


def copy_facts(context: PlanContext) -> Sequence[Fact[Any]]:
    """What the new volume's pool, both exports and, if it is to remove the old volume, its pool must know."""
    parts = _Move(context)
    pool = context.drivers.pool(parts.target.storage)
    new, old = parts.target.access, parts.source.access
    return (*pool.facts(new.place), *new.facts(), *old.facts(), *clear_facts(context))


def plan_copy(context: PlanContext) -> Plan:
    """Make the new volume, let the machine copy, switch the image over. Undone up to there, forward only behind."""
    parts = _Move(context)
    if parts.image.volume_id != parts.source.volume.id:
        raise ConflictError(f"image {parts.image.name} was moved meanwhile")
    _refuse_lasting(context, parts)
    pool = context.drivers.pool(parts.target.storage)
    made = pool.create(parts.target.access.place, parts.target.volume, context.facts)
    return Plan(
        steps=(
            *prefixed(made, "new-"),
            *parts.target.access.grant(context),
            *parts.source.access.grant(context),
            *_copied(context, parts),
            *parts.target.access.revoke(context),
            *parts.source.access.revoke(context),
            *offered(context, parts.target.storage, parts.target.volume),
            *_switched(context, parts),
        )
    )


def _refuse_lasting(context: PlanContext, parts: _Move) -> None:
    """What would keep the old volume from being removed is said before anything is copied: then nothing can be undone.

    Raises what the pool raises, and ConflictError for a volume that others may need. Where a clone is a copy of every
    block, a snapshot holds only what differs from its source; records do not tell one from the other.
    """
    if context.arguments.keep_source:
        return
    source = parts.source
    removal(context, source.storage, source.volume)
    place, others = source.access.place, context.read.find(Volume, parent_id=source.volume.id, limit=3)
    needs = able(context, source.storage, place, Cap.SNAPSHOT) and not able(
        context, source.storage, place, Cap.CLONE_COW
    )
    if others and needs:
        names = ", ".join(other.name for other in others)
        raise ConflictError(
            f"volume {source.volume.name} cannot be removed as long as a snapshot of it is there: {names} may be one",
            field="keep_source",
            remedy=f"move the image with --keep-source, and remove volume {source.volume.id} when nothing needs it",
        )


def _copied(context: PlanContext, parts: _Move) -> Steps:
    machine = {"resource_id": parts.machine.id}
    revocable = parts.source.access.revocable(context) and parts.target.access.revocable(context)
    details = {"from": parts.source.volume.id, "to": parts.target.volume.id}
    return (
        Wait(
            name="idle",
            title=f"{parts.machine.name} is idle",
            condition="resource.ready",
            undo_condition="worker.back",
            arguments=machine | {"revocable": revocable},
            timeout=120,
            undo_timeout=_BACK_SECONDS,
        ),
        Change(
            name="order",
            title=f"Order {parts.machine.name} to copy {parts.source.volume.name} to {parts.target.storage.name}",
            change="order.issue",
            arguments=machine | {"verb": TRANSFER, "details": details},
            undo="worker.recall",
        ),
        Wait(
            name="copied",
            title=f"{parts.machine.name} has copied all of it",
            condition="worker.transferred",
            arguments={"order_id": Output(step="order", field="order_id").model_dump()},
            timeout=COPY_SECONDS,
        ),
    )


def _switched(context: PlanContext, parts: _Move) -> Steps:
    """The image is in the new volume, and everything borrowed is free again."""
    image, volume = parts.image, parts.target.volume
    deployment = context.settings["deployments"][parts.target.storage.type]
    ends = [
        _end("commit", "From here on it only goes forward", "operation.commit"),
        loans.returned("return-source", parts.source.loan, f"Return volume {parts.source.volume.name}"),
        loans.returned("return-target", parts.target.loan, "Return the new volume"),
        _end("release", f"{parts.machine.name} goes back to the pool", "worker.release", resource_id=parts.machine.id),
    ]
    if not context.arguments.keep_source:
        old = {"entity": "volume", "id": parts.source.volume.id, "event": "remove"}
        ends.append(_end("retire", f"Take the old volume {parts.source.volume.name} out of use", "state.apply", **old))
    switch = Change(
        name="switch",
        title=f"Image {image.name} is on storage {parts.target.storage.name}",
        change="record.set",
        arguments={"entity": "image", "id": image.id, "set": {"volume_id": volume.id, "deployment": deployment}},
        undo="record.restore",
        undo_arguments={"entity": "image", "id": image.id},
    )
    return (switch, *ends)


def _end(name: str, title: str, change: str, **arguments: Any) -> Change:
    return Change(name=name, title=title, change=change, arguments=arguments, undo=_SWITCHED)


def clear_facts(context: PlanContext) -> Sequence[Fact[Any]]:
    """What the old volume's pool must know of its host."""
    if context.arguments.keep_source:
        return ()
    source = _Move(context).source
    return context.drivers.pool(source.storage).facts(source.access.place)


def plan_clear(context: PlanContext) -> Plan:
    """The old volume goes, unless it was to be kept."""
    if context.arguments.keep_source:
        return Plan()
    source = _Move(context).source
    return removal(context, source.storage, source.volume)
