"""Checking a storage: what lies in its pool, against our records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.storage import Storage, Volume, VolumePhase
from openqrm.operations.storage_audit import report
from openqrm.operations.storage_rights import Finding
from openqrm.operations.storage_scan import unclaimed
from openqrm.operations.storage_types import traits
from openqrm.operations.volume import making
from openqrm.plugin_api.drivers import Cap
from openqrm.plugin_api.operation import Operation, Phase
from openqrm.plugin_api.steps import Plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from openqrm.plugin_api.operation import PlanContext


def plan_check(context: PlanContext) -> Plan:
    """Report volumes that are gone or not recorded, leftovers, and records whose operation is over."""
    storage = _target(context)
    volumes = context.read.find(Volume, storage_id=storage.id)
    findings = list(_stuck(context, volumes))
    if Cap.LIST in traits(context.settings, storage).capabilities:
        findings += _different(context, volumes)
    busy = [volume.name for volume in volumes if making(context.read, volume) is not None]
    if busy:  # what lies there may be theirs
        skipped = [f"leftovers: an operation makes or removes volume {', '.join(busy)}"]
        return Plan(steps=(report(storage, findings, skipped=skipped),))
    return Plan(steps=(report(storage, [*findings, *_leftovers(context)]),))


def _different(context: PlanContext, volumes: Sequence[Volume]) -> Iterator[Finding]:
    storage = _target(context)
    place = context.drivers.context(storage, context.read)
    found = context.drivers.pool(storage).entries(place, context.facts)
    there, known = {entry.name for entry in found}, {volume.name for volume in volumes}
    for volume in volumes:
        if volume.phase is VolumePhase.READY and volume.name not in there:
            remedy = f"bring it back from a backup, or: openqrm volume remove {volume.id}"
            yield Finding("volume gone", f"volume {volume.name}", "it is recorded but not on the storage", remedy)
    for entry in unclaimed(context, place, found):
        if entry.name not in known:
            text = "it is on the storage but not recorded"
            yield Finding("unknown volume", entry.name, text, f"openqrm storage scan {storage.name}")


def _stuck(context: PlanContext, volumes: Sequence[Volume]) -> Iterator[Finding]:
    for volume in volumes:
        if volume.phase is not VolumePhase.READY and making(context.read, volume) is None:
            text = f"it is {volume.phase}, and no operation works on it any more"
            yield Finding("abandoned volume", f"volume {volume.name}", text, f"openqrm volume remove {volume.id}")


def _leftovers(context: PlanContext) -> Iterator[Finding]:
    storage = _target(context)
    place = context.drivers.context(storage, context.read)
    for left in context.drivers.pool(storage).leftovers(place, context.facts):
        text = "it is no volume: half made, or half removed"
        yield Finding("leftover", left, text, "remove it on the host when nobody needs it")


def _target(context: PlanContext) -> Storage:
    assert isinstance(context.target, Storage)  # noqa: S101  # the declaration's target
    return context.target


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="storage.check",
        title="Check a storage",
        summary="Compare what lies in a storage's pool with the recorded volumes, and find what was left over.",
        target=Storage,
        phases=(
            Phase(
                "check",
                plan="openqrm.operations.storage_check:plan_check",
                facts="openqrm.operations.volume:pool_facts",
            ),
        ),
        reports=True,
    ),
)
