"""What the engine's core is told (events), and what it answers (a decision with at most one command)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from openqrm.domain.event import Severity
    from openqrm.domain.operation import OperationStatus
    from openqrm.engine.state import OperationState, StepState


@dataclass(frozen=True)
class Claimed:
    """This controller owns the operation now; another one may have had it before."""


@dataclass(frozen=True)
class Prepared:
    """What was there before is known."""

    output: Mapping[str, Any]


@dataclass(frozen=True)
class Planned:
    """A planning step made these steps; they come right after it."""

    steps: tuple[StepState, ...]
    output: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Succeeded:
    """The step, or its undo, did what it should."""

    output: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """The step, its verification or its undo failed."""

    error: Mapping[str, Any]
    retryable: bool = True
    conflict: bool = False
    """Something else is in the way now: an admission waits for it to go."""


@dataclass(frozen=True)
class Refused:
    """The host gate knows a later generation or epoch: nothing was done, and trying again is wrong."""

    error: Mapping[str, Any]


@dataclass(frozen=True)
class Verified:
    """Whether the effect of a step in doubt is in place."""

    in_place: bool


@dataclass(frozen=True)
class Timer:
    """The time a `Sleep` asked for has come."""


@dataclass(frozen=True)
class Cancel:
    """Someone wants the operation undone."""


@dataclass(frozen=True)
class Resume:
    """Someone mended what an undo met: try again."""


@dataclass(frozen=True)
class Abandon:
    """Someone takes care of what remains."""


Happening = Claimed | Prepared | Planned | Succeeded | Failed | Refused | Verified | Timer | Cancel | Resume | Abandon


@dataclass(frozen=True)
class Prepare:
    """Find out what is there before `step` acts."""

    step: str


@dataclass(frozen=True)
class Act:
    """Do it."""

    step: str


@dataclass(frozen=True)
class Verify:
    """Look whether it was done."""

    step: str


@dataclass(frozen=True)
class Undo:
    """Take it back."""

    step: str


@dataclass(frozen=True)
class Sleep:
    """Come back with `Timer` at that time."""

    until: datetime


@dataclass(frozen=True)
class Finish:
    """Nothing is left to do for a controller."""

    status: OperationStatus


@dataclass(frozen=True)
class Rest:
    """Give it back; it may be claimed again from that time on."""

    until: datetime


Command = Prepare | Act | Verify | Undo | Sleep | Finish | Rest


@dataclass(frozen=True)
class Raise:
    """Log an event."""

    severity: Severity
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What follows. No command: the operation waits to be claimed."""

    state: OperationState
    command: Command | None = None
    raised: tuple[Raise, ...] = ()
