"""Volumes grow, with the file system in them, while nobody uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from openqrm.domain.errors import InvalidError
from openqrm.domain.model import Attr, MegaBytes
from openqrm.domain.storage import Storage, Volume, VolumePhase
from openqrm.operations import capabilities, loans
from openqrm.plugin_api.drivers import Cap
from openqrm.plugin_api.operation import Arguments, Operation, Phase
from openqrm.plugin_api.steps import Change, Irreversible, Plan
from openqrm.plugin_api.values import Output

if TYPE_CHECKING:
    from openqrm.plugin_api.drivers import Resizes
    from openqrm.plugin_api.operation import Call, PlanContext
    from openqrm.plugin_api.records import Reader


class ResizeArguments(Arguments):
    """How large it is to be."""

    size_mb: Annotated[MegaBytes, Field(ge=1), Attr("Size", unit="MB", help="not less than it is now")]


def admit_resize(reader: Reader, call: Call) -> Plan:
    """The storage's host borrows the volume, so that no appliance starts from it and no other machine uses it."""
    volume, given = _target(call), call.arguments
    storage = reader.get(Storage, volume.storage_id)
    capabilities.require(call.settings, storage, Cap.RESIZE)
    if given.size_mb <= volume.size_mb:
        raise InvalidError(
            f"volume {volume.name} has {volume.size_mb} MB: it only grows",
            field="size_mb",
            remedy="to make an image smaller, move it to a smaller volume of another storage",
        )
    return Plan(
        steps=(
            Change(
                name="loan",
                title=f"Keep volume {volume.name} from being used",
                change="loan.take",
                arguments={"volume_id": volume.id, "resource_id": storage.resource_id, "write": True},
                undo="loan.undo-take",
            ),
        )
    )


def plan_resize(context: PlanContext) -> Plan:
    """The pool grows it; the record follows. InvalidError for a size that this pool cannot give."""
    volume, size_mb = _target(context), context.arguments.size_mb
    storage = context.read.get(Storage, volume.storage_id)
    context.drivers.require(storage, Cap.RESIZE)
    place = context.drivers.context(storage, context.read)
    pool: Resizes = context.drivers.pool(storage)  # type: ignore[assignment]  # the capability says so
    return Plan(
        steps=(
            *pool.resize(place, volume, size_mb, context.facts),
            Change(
                name="size",
                title=f"Record that volume {volume.name} has {size_mb} MB",
                change="record.set",
                arguments={"entity": "volume", "id": volume.id, "set": {"size_mb": size_mb}},
                undo=Irreversible(reason="what has grown does not shrink"),
            ),
            loans.returned("return", Output(step="loan", field="loan_id"), f"Let volume {volume.name} be used again"),
        )
    )


def _target(call: Call | PlanContext) -> Volume:
    assert isinstance(call.target, Volume)  # noqa: S101  # the declaration's target
    return call.target


_HERE = "openqrm.operations.volume_resize"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="volume.resize",
        title="Resize a volume",
        summary="Grow a volume that nobody uses, with the file system in it.",
        target=Volume,
        arguments=ResizeArguments,
        allowed={"phase": frozenset({str(VolumePhase.READY)})},
        admit=f"{_HERE}:admit_resize",
        phases=(Phase("resize", plan=f"{_HERE}:plan_resize", facts="openqrm.operations.volume:pool_facts"),),
    ),
)
