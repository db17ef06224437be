"""Deadlines of resources' transient phases: no machine stays in one for ever, whoever forgot it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from openqrm.domain.event import Severity
from openqrm.domain.resource import RESOURCE_PHASES, Phase, Resource
from openqrm.operations import states

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from openqrm.domain.states import Deadline
    from openqrm.operations.heartbeats import Watched
    from openqrm.plugin_api.records import Writer

GRACE = timedelta(seconds=60)
"""An operation that waits with the same deadline comes first: its undo knows more than we do."""
TRANSIENT = tuple(Phase(limit.state) for limit in RESOURCE_PHASES.deadlines)


def overdue(machines: Sequence[Watched], now: datetime) -> list[tuple[Watched, Deadline]]:
    """The machines whose phase has lasted longer than it may."""
    found = []
    for resource in machines:
        limit = RESOURCE_PHASES.deadline(resource.phase)
        if limit is None or resource.phase_since is None:
            continue
        if now - resource.phase_since > timedelta(seconds=limit.seconds) + GRACE:
            found.append((resource, limit))
    return found


def apply(writer: Writer, late: Sequence[tuple[Watched, Deadline]]) -> int:
    """Make the next move of each; one that moved meanwhile is left alone."""
    applied = 0
    for seen, limit in late:
        resource = writer.get(Resource, seen.id)
        if (resource.phase, resource.phase_since) != (seen.phase, seen.phase_since):
            continue
        after = states.apply(writer, resource, "phase", limit.event)
        text = f"{resource.name} was {seen.phase} for over {limit.seconds} s ({limit.reason}) and is {after.phase} now"
        writer.event(text, severity=Severity.WARNING, source="machines", about=resource)
        applied += 1
    return applied
