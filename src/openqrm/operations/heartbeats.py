"""Health from heartbeats: pure rules, and their application to resources in batches. No audit, no jobs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol

from openqrm.domain.event import Severity
from openqrm.domain.resource import SERVER_ID, Health, Phase, Resource

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from openqrm.operations.machine_messages import Beat
    from openqrm.plugin_api.records import Reader, Writer

LATE_BEATS = 3
"""So many heartbeats may be missing before a machine counts as late."""
LOST_SECONDS = 60.0
"""After so long without a word a machine counts as lost. High availability acts on it later still."""
WATCHED = (Phase.IDLE, Phase.DEPLOYING, Phase.ACTIVE, Phase.RETURNING)
"""Phases in which a machine is expected to speak."""
_ON_THE_WAY = frozenset({Phase.DEPLOYING, Phase.RETURNING})


class HealthSink(Protocol):
    """Where heartbeats are kept. Blocking; called in a thread, in batches."""

    def record(self, beats: Mapping[int, Beat], at: datetime) -> None:
        """Keep the newest heartbeat of each resource."""

    def last_seen(self) -> Mapping[int, datetime]:
        """When each resource was heard last."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds without a word after which a machine is late or lost."""

    late: float
    lost: float

    @classmethod
    def of(cls, heartbeat_seconds: int, lost: float = LOST_SECONDS) -> Limits:
        """The limits for a pace of heartbeats; lost is never before late."""
        late = heartbeat_seconds * (LATE_BEATS + 0.5)
        return cls(late, max(lost, late + heartbeat_seconds))


def judge(last_seen: datetime | None, listening_since: datetime, now: datetime, limits: Limits) -> Health:
    """How a watched machine is. Nobody can be late with a word to a controller that was not listening yet."""
    heard = max(last_seen, listening_since) if last_seen is not None else listening_since
    silent = (now - heard).total_seconds()
    if silent >= limits.lost:
        return Health.LOST
    if silent >= limits.late:
        return Health.LATE
    # Silence since a recent start of ours is no sign of life either.
    return Health.OK if last_seen is not None and now - last_seen < timedelta(seconds=limits.late) else Health.UNKNOWN


def newest(one: Mapping[int, datetime], other: Mapping[int, datetime]) -> dict[int, datetime]:
    """For each resource the later of two times."""
    return {**one, **{number: max(at, one.get(number, at)) for number, at in other.items()}}


class Watched(NamedTuple):
    """What is looked at of every machine, every few seconds: these fields of its resource and nothing more."""

    id: int
    phase: Phase
    phase_since: datetime | None
    health: Health


def watched(reader: Reader, phases: Collection[Phase]) -> list[Watched]:
    """The machines in these phases; not what was made by hand, and not the server itself."""
    found = reader.columns(
        Resource, Watched._fields, phase__in=sorted(phases), manual=False, agentless=False, id__ne=SERVER_ID
    )
    return [Watched(*row) for row in found]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A machine whose health changes."""

    resource: Watched
    health: Health


def verdicts(
    machines: Sequence[Watched],
    last_seen: Mapping[int, datetime],
    listening_since: datetime,
    now: datetime,
    limits: Limits,
) -> list[Verdict]:
    """The changes of health that are due. One that is not known yet keeps what it was."""
    found = []
    for resource in machines:
        if resource.phase not in WATCHED:
            continue
        # A machine that just registered or changed its phase was heard then, before its first heartbeat.
        since = max(listening_since, resource.phase_since or listening_since)
        health = judge(last_seen.get(resource.id), since, now, limits)
        if health not in (resource.health, Health.UNKNOWN):
            found.append(Verdict(resource, health))
    return found


def apply(writer: Writer, changes: Sequence[Verdict]) -> int:
    """Store changes of health and log them; a machine that changed its phase meanwhile is left for the next time."""
    applied = 0
    for change in changes:
        resource = writer.get(Resource, change.resource.id)
        if resource.phase is not change.resource.phase or resource.health is change.health:
            continue
        writer.update(resource, health=change.health)
        writer.event(
            _words(resource, change.health),
            severity=_severity(resource, change.health),
            source="health",
            about=resource,
        )
        applied += 1
    return applied


def _words(resource: Resource, health: Health) -> str:
    if health is Health.OK:
        return f"{resource.name} is heard again"
    return f"{resource.name} is {health}: no heartbeat for too long"


def _severity(resource: Resource, health: Health) -> Severity:
    """A machine that switches to another system is silent for a while; that alarms nobody."""
    if health is Health.OK or resource.phase in _ON_THE_WAY:
        return Severity.INFO
    return Severity.ERROR if health is Health.LOST else Severity.WARNING
