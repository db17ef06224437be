"""What the engine's core decides on: an operation and its steps as frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from openqrm.domain.operation import OperationStatus, StepStatus
from openqrm.plugin_api.steps import TRIES

if TYPE_CHECKING:
    from collections.abc import Mapping


EFFECT = frozenset({StepStatus.ACTING, StepStatus.DONE, StepStatus.FAILED, StepStatus.UNDOING, StepStatus.STUCK})
"""A step in one of these has, or may have, an effect."""

WORKING = frozenset({OperationStatus.RUNNING, OperationStatus.UNDOING})


@dataclass(frozen=True)
class Policy:
    """How often a step is tried in all, and how many seconds pass before each further try."""

    tries: int = TRIES
    backoff: tuple[float, ...] = (1.0, 4.0)
    longest: float = 60.0
    """Seconds between two looks for a host that is waited for."""
    away_tries: int = 12
    """How often an undo is tried in all while its host is away: with these pauses, for some nine minutes."""

    def pause(self, attempts: int) -> timedelta:
        """The pause after that many tries."""
        return timedelta(seconds=self.backoff[min((attempts - 1) % self.tries, len(self.backoff) - 1)])

    def patience(self, attempts: int) -> timedelta:
        """The pause after that many tries to reach a host that is away: four times the one before, up to `longest`."""
        return timedelta(seconds=min(self.longest, 4.0 ** min(attempts - 1, 16)))


def patience(waited: timedelta) -> timedelta:
    """How long until a conflict is looked at again, given how long the operation has waited: 1 to 15 seconds."""
    return timedelta(seconds=min(15.0, 1 + waited.total_seconds() / 10))


@dataclass(frozen=True)
class StepState:
    """What the decisions need to know of a step.

    `atomic` steps act inside the transaction that records them, so no crash can leave them half done. `inert` ones
    have no effect that could be undone. `prepares` ones must record what was there (in `output`) before they act.
    `doubt` is set while nobody knows whether the step acted: the controller that started it is gone.
    """

    name: str
    title: str = ""
    status: StepStatus = StepStatus.PENDING
    attempts: int = 0
    not_before: datetime | None = None
    output: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None
    inert: bool = False
    prepares: bool = False
    verifiable: bool = False
    atomic: bool = False
    irreversible: str | None = None
    doubt: bool = False

    @property
    def prepared(self) -> bool:
        """Whether what was there before is on record."""
        return "previous" in self.output

    @property
    def without_effect(self) -> bool:
        """Whether there is nothing to take back, however far the step is."""
        if self.inert or (self.atomic and self.status is not StepStatus.DONE):
            return True
        return self.prepares and not self.prepared

    @property
    def left_alone(self) -> bool:
        """Whether its effect stays, because it cannot be undone."""
        return self.irreversible is not None and self.status in (StepStatus.DONE, StepStatus.FAILED)


@dataclass(frozen=True)
class OperationState:
    """An operation and its steps, in order.

    A `forward_only` one is never undone: it waits for a human, then goes on.
    """

    id: int
    name: str
    status: OperationStatus
    steps: tuple[StepState, ...] = ()
    error: Mapping[str, Any] | None = None
    cancelled: bool = False
    forward_only: bool = False
    since: datetime | None = None
    """When it was asked for."""
    not_before: datetime | None = None
    """Set while it waits for a conflict of its admission to go away; meanwhile nobody owns it."""

    @property
    def progress(self) -> int:
        """Percent of the known steps that are done."""
        if self.status is OperationStatus.DONE:
            return 100
        done = sum(1 for step in self.steps if step.status is StepStatus.DONE)
        return 100 * done // len(self.steps) if self.steps else 0

    def admitting(self, name: str) -> bool:
        """Whether a step is part of an admission that was left to the engine: only changes come before it."""
        for step in self.steps:
            if step.name == name:
                return step.atomic
            if not step.atomic:
                break
        return False

    def step(self, name: str) -> StepState:
        """A step by name."""
        return next(step for step in self.steps if step.name == name)


def remaining(state: OperationState) -> list[dict[str, str]]:
    """The steps whose effect is, or may be, still there; of one that goes forward, what is not done yet."""
    undoing = (StepStatus.UNDOING, StepStatus.STUCK)
    if state.forward_only:
        left = [step for step in state.steps if step.status is not StepStatus.DONE]
    else:
        left = [
            step
            for step in state.steps
            if step.status in undoing or (step.status in EFFECT and not step.without_effect)
        ]
    return [{"step": step.name, "title": step.title, "status": str(step.status)} for step in left]
