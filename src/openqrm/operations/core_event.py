"""Events: someone has seen it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.event import Event
from openqrm.plugin_api.operation import Operation

if TYPE_CHECKING:
    from openqrm.plugin_api.operation import Call
    from openqrm.plugin_api.records import Writer


def acknowledge(writer: Writer, call: Call) -> Event:
    """Note who saw it first and when; doing it again changes nothing."""
    event = call.target
    assert isinstance(event, Event)  # noqa: S101  # the declaration's target
    if event.acknowledged_by is not None:
        return event
    return writer.update(event, acknowledged_by=call.actor.name, acknowledged_at=writer.now)


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="event.acknowledge",
        title="Acknowledge an event",
        summary="Note that someone has seen it",
        target=Event,
        act="openqrm.operations.core_event:acknowledge",
    ),
)
