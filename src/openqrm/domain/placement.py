"""Which resource an appliance gets, and why: a pure function of requirements and candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openqrm.domain.resource import Health, Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.domain.appliance import Requirements
    from openqrm.domain.resource import Resource

_NAMED_REJECTIONS = 3
"""How many rejected candidates an explanation names before it counts the rest."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The chosen resource, if any fits, and the explanation an operator reads."""

    chosen: Resource | None
    text: str


def shortfall(requirements: Requirements, resource: Resource) -> str | None:
    """What a resource lacks, in words; None when it fits."""
    if resource.phase is not Phase.IDLE:
        return f"is {resource.phase}, not idle"
    if resource.health is not Health.OK:
        return f"has health {resource.health}"
    if requirements.type and requirements.type != resource.type:
        return f"is of type {resource.type}, not {requirements.type}"
    if requirements.group and requirements.group != resource.group:
        return f"is in group {resource.group or 'none'}, not {requirements.group}"
    amounts = (
        (requirements.memory_mb - resource.memory_mb, "MB of memory"),
        (requirements.cpus - resource.cpus, "CPUs"),
        (requirements.nics - resource.nic_count, "NICs"),
    )
    lacking = [f"{missing} {what}" for missing, what in amounts if missing > 0]
    return f"lacks {' and '.join(lacking)}" if lacking else None


def place(requirements: Requirements, candidates: Sequence[Resource]) -> Placement:
    """The smallest candidate that fits: large machines stay free for those that need them."""
    verdicts = [(resource, shortfall(requirements, resource)) for resource in candidates]
    fitting = [resource for resource, lack in verdicts if lack is None]
    rejected = [f"{resource.name} {lack}" for resource, lack in verdicts if lack is not None]
    chosen = min(fitting, key=lambda resource: (resource.memory_mb, resource.cpus, resource.id), default=None)
    parts = [f"{len(fitting)} of {len(candidates)} fit"]
    if chosen is not None:
        parts.append(f"chose {chosen.name} because it is the smallest that fits ({chosen.memory_mb} MB)")
    parts += rejected[:_NAMED_REJECTIONS]
    if len(rejected) > _NAMED_REJECTIONS:
        parts.append(f"and {len(rejected) - _NAMED_REJECTIONS} more do not fit")
    return Placement(chosen, "; ".join(parts))
