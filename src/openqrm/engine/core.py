"""The engine's decisions: retry, verify after a crash, undo, stop for a human. Pure: events in, commands out.

No clock, database or network: `now` comes with the event, and what a decision changes is the difference between the
state that went in and the one that comes out. An operation has at most one step in the air, so a decision has one
command.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import ConflictError, UnreachableError
from openqrm.domain.event import Severity
from openqrm.domain.operation import OperationStatus, StepStatus
from openqrm.engine.messages import (
    Abandon,
    Act,
    Cancel,
    Claimed,
    Decision,
    Failed,
    Finish,
    Happening,
    Planned,
    Prepare,
    Prepared,
    Raise,
    Refused,
    Rest,
    Resume,
    Sleep,
    Succeeded,
    Timer,
    Undo,
    Verified,
    Verify,
)
from openqrm.engine.state import EFFECT, WORKING, OperationState, Policy, StepState, patience, remaining

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

DEFAULT = Policy()


def advance(state: OperationState, event: Happening, now: datetime, policy: Policy = DEFAULT) -> Decision:
    """The next state, at most one command, and what to log. ConflictError for an event that makes no sense now."""
    match event:
        case Claimed():
            return _claimed(state, now)
        case Resume():
            return _resumed(state, policy)
        case Abandon():
            return _abandoned(state)
        case Cancel():
            return _cancelled(state, now)
    if state.status not in WORKING:
        raise ConflictError(f"operation {state.id} is {state.status}: {type(event).__name__} cannot happen")
    step = _in_the_air(state)
    match event:
        case Failed() | Refused():
            return _went_wrong(state, step, event, now, policy)
        case _:
            return _next(_went_well(state, step, event), now)


def _went_well(
    state: OperationState, step: StepState, event: Prepared | Planned | Succeeded | Verified | Timer
) -> OperationState:
    match event:
        case Prepared(output):
            return _with(state, step, output={**step.output, **output})
        case Planned(steps, output):
            return _insert(_done(state, step, output), step.name, steps)
        case Succeeded(output):
            if state.status is OperationStatus.UNDOING:
                return _with(state, step, status=StepStatus.UNDONE, not_before=None, doubt=False)
            return _done(state, step, output)
        case Verified(in_place):
            return _done(state, step, {}) if in_place else _with(state, step, doubt=False)
        case Timer():
            return _again(state, step)


def _again(state: OperationState, step: StepState) -> OperationState:
    """The pause before the next try is over. Atomic steps count their tries when they fail."""
    return _with(state, step, not_before=None, attempts=step.attempts + (0 if step.atomic else 1))


def _cancelled(state: OperationState, now: datetime) -> Decision:
    if state.status not in WORKING | {OperationStatus.QUEUED}:
        raise ConflictError(f"operation {state.id} is {state.status}: nothing to cancel")
    if state.forward_only:
        raise ConflictError(f"{state.name} only goes forward; it cannot be cancelled", remedy="let it finish")
    return _next(replace(state, cancelled=True), now)


def _in_the_air(state: OperationState) -> StepState:
    """The step that the last command was about."""
    if state.status is OperationStatus.RUNNING:
        return next(step for step in state.steps if step.status in (StepStatus.PENDING, StepStatus.ACTING))
    return next(step for step in reversed(state.steps) if step.status in EFFECT and not step.left_alone)


def _with(state: OperationState, step: StepState, **changes: Any) -> OperationState:
    return replace(
        state, steps=tuple(replace(each, **changes) if each.name == step.name else each for each in state.steps)
    )


def _insert(state: OperationState, after: str, steps: tuple[StepState, ...]) -> OperationState:
    place = next(index for index, step in enumerate(state.steps) if step.name == after) + 1
    return replace(state, steps=state.steps[:place] + steps + state.steps[place:])


def _done(state: OperationState, step: StepState, output: Mapping[str, Any]) -> OperationState:
    return _with(
        state,
        step,
        status=StepStatus.DONE,
        output={**step.output, **output},
        attempts=max(step.attempts, 1),
        not_before=None,
        error=None,
        doubt=False,
    )


def _claimed(state: OperationState, now: datetime) -> Decision:
    if state.status not in WORKING | {OperationStatus.QUEUED}:
        raise ConflictError(f"operation {state.id} is {state.status}: nothing to execute")
    if state.status is OperationStatus.QUEUED:
        state = replace(state, status=OperationStatus.RUNNING, not_before=None)
    for step in state.steps:
        if step.status is not StepStatus.ACTING:
            continue
        if step.not_before is not None and step.not_before <= now:
            state = _again(state, step)
        elif step.not_before is None:
            state = _with(state, step, doubt=True)
    return _next(state, now)


def _next(state: OperationState, now: datetime) -> Decision:
    """What to do in this state."""
    if state.cancelled and not state.forward_only and state.status is not OperationStatus.UNDOING:
        error = {"code": "cancelled", "detail": "cancelled; what it did is undone"}
        state = replace(state, status=OperationStatus.UNDOING, error=error)
    if state.status is OperationStatus.UNDOING:
        return _undo_next(state, now)
    step = next((each for each in state.steps if each.status is not StepStatus.DONE), None)
    if step is None:
        done = replace(state, status=OperationStatus.DONE)
        return Decision(done, Finish(done.status), (Raise(Severity.INFO, f"{state.name} is done"),))
    if step.not_before is not None and step.not_before > now:
        return Decision(state, Sleep(step.not_before))
    if step.status is StepStatus.PENDING and not step.atomic:
        state = _with(state, step, status=StepStatus.ACTING, attempts=1)
    if step.prepares and not step.prepared:
        return Decision(state, Prepare(step.name))
    if step.doubt and step.verifiable:
        return Decision(state, Verify(step.name))
    return Decision(state, Act(step.name))


def _went_wrong(
    state: OperationState, step: StepState, event: Failed | Refused, now: datetime, policy: Policy
) -> Decision:
    undoing = state.status is OperationStatus.UNDOING
    if isinstance(event, Failed) and event.conflict and not undoing and state.admitting(step.name):
        return _rested(state, step, event.error, now)
    if step.atomic:
        step = replace(step, attempts=step.attempts + 1)
    retryable = isinstance(event, Failed) and event.retryable
    away = retryable and event.error.get("code") == UnreachableError.code
    if away and state.forward_only and not undoing:
        return _patient(state, step, event.error, now, policy)
    # A host whose power was cut comes back, and then what it did is undone without a human.
    returns = away and undoing and step.attempts < policy.away_tries
    if returns or (retryable and step.attempts % policy.tries):
        later = now + (policy.patience if returns else policy.pause)(step.attempts)
        status = StepStatus.UNDOING if undoing else StepStatus.ACTING
        changes = {"status": status, "error": event.error, "not_before": later, "attempts": step.attempts}
        return Decision(_with(state, step, **changes, doubt=False), Sleep(later))
    if undoing or state.forward_only:
        return _stuck(state, step, event.error)
    untouched = isinstance(event, Refused) and step.attempts <= 1 and not step.doubt
    return _give_up(state, step, StepStatus.UNDONE if untouched else StepStatus.FAILED, event.error, now)


def _patient(
    state: OperationState, step: StepState, error: Mapping[str, Any], now: datetime, policy: Policy
) -> Decision:
    """A host is away and nothing can be taken back: go on when it is there again, however long that takes. Told once,
    when others would give up. A human who cancels it takes over: it needs attention then."""
    if state.cancelled:
        return _stuck(state, step, error)
    later = now + policy.patience(step.attempts)
    changes = {"status": StepStatus.ACTING, "error": error, "not_before": later, "attempts": step.attempts}
    raised: tuple[Raise, ...] = ()
    if step.attempts == policy.tries:
        text = f"{state.name} waits in step {step.name} for a host to come back: {error.get('detail', '')}"
        raised = (Raise(Severity.WARNING, text, {"step": step.name, "title": step.title, "error": dict(error)}),)
    return Decision(_with(state, step, **changes, doubt=False), Sleep(later), raised)


def _rested(state: OperationState, step: StepState, error: Mapping[str, Any], now: datetime) -> Decision:
    """Its caller was told that it waits for a conflict to go away: back to the queue, without a try counted."""
    until = now + patience(now - (state.since or now))
    state = replace(_with(state, step, error=error), status=OperationStatus.QUEUED, not_before=until)
    return Decision(state, Rest(until))


def _give_up(
    state: OperationState, step: StepState, status: StepStatus, why: Mapping[str, Any], now: datetime
) -> Decision:
    """A step failed for good: say so and undo."""
    state = _with(state, step, status=status, error=why, attempts=step.attempts, not_before=None, doubt=False)
    error = {**why, "step": step.name}
    kept = [each.name for each in state.steps if each.status in EFFECT and each.irreversible is not None]
    if kept:
        error["irreversible"] = kept
    data = {"step": step.name, "title": step.title, "attempts": step.attempts, "error": error}
    text = f"{state.name} failed in step {step.name}: {error.get('detail', '')}"
    if kept:
        text += f"; cannot be undone: {', '.join(kept)}"
    decision = _next(replace(state, status=OperationStatus.UNDOING, error=error), now)
    return replace(decision, raised=(Raise(Severity.ERROR, text, data), *decision.raised))


def _undo_next(state: OperationState, now: datetime) -> Decision:
    """Take back, last first, whatever may have had an effect."""
    for step in reversed(state.steps):
        if step.status in (StepStatus.PENDING, StepStatus.UNDONE) or step.left_alone:
            continue
        if step.status is not StepStatus.UNDOING:
            if step.without_effect:
                state = _with(state, step, status=StepStatus.UNDONE, not_before=None, doubt=False)
                continue
            if step.irreversible is not None:
                state = _with(state, step, status=StepStatus.FAILED, not_before=None, doubt=False)
                continue
            attempts = 0 if step.atomic else 1
            changes = {"status": StepStatus.UNDOING, "attempts": attempts, "not_before": None, "doubt": False}
            return Decision(_with(state, step, **changes), Undo(step.name))
        if step.not_before is not None and step.not_before > now:
            return Decision(state, Sleep(step.not_before))
        if step.not_before is not None:
            state = _again(state, step)
        return Decision(state, Undo(step.name))
    failed = replace(state, status=OperationStatus.FAILED)
    return Decision(failed, Finish(failed.status), _told_undone(failed))


def _told_undone(state: OperationState) -> tuple[Raise, ...]:
    what = "cancelled" if state.cancelled else "failed"
    return (Raise(Severity.NOTICE, f"{state.name} {what}: what it did is undone"),)


def _stuck(state: OperationState, step: StepState, error: Mapping[str, Any]) -> Decision:
    """An undo, or a step of an operation that only goes forward, failed for good: a human has to look."""
    what = "undoing step" if state.status is OperationStatus.UNDOING else "step"
    state = _with(state, step, status=StepStatus.STUCK, error=error, attempts=step.attempts, not_before=None)
    remains = remaining(state)
    whole = {**(state.error or {}), "stuck": {**error, "step": step.name}, "remaining": remains}
    state = replace(state, status=OperationStatus.ATTENTION, error=whole)
    text = f"{state.name} needs attention: {what} {step.name} failed: {error.get('detail', '')}"
    data = {"step": step.name, "title": step.title, "error": dict(error), "remaining": remains}
    return Decision(state, Finish(state.status), (Raise(Severity.ERROR, text, data),))


def _resumed(state: OperationState, policy: Policy) -> Decision:
    if state.status is not OperationStatus.ATTENTION:
        raise ConflictError(f"operation {state.id} is {state.status}: only one that needs attention can be resumed")
    forward = state.forward_only
    for step in state.steps:
        if step.status is StepStatus.STUCK:
            tried = -(-step.attempts // policy.tries) * policy.tries
            attempts = tried if step.atomic else tried + 1
            status = StepStatus.ACTING if forward else StepStatus.UNDOING
            state = _with(state, step, status=status, attempts=attempts, not_before=None, error=None)
    error = {name: value for name, value in (state.error or {}).items() if name not in ("stuck", "remaining")}
    onward = OperationStatus.RUNNING if forward else OperationStatus.UNDOING
    return Decision(replace(state, status=onward, error=error or None))


def _abandoned(state: OperationState) -> Decision:
    if state.status is not OperationStatus.ATTENTION:
        raise ConflictError(f"operation {state.id} is {state.status}: only one that needs attention can be abandoned")
    remains = remaining(state)
    text = f"{state.name} was abandoned; to be cleaned up by hand: {', '.join(each['step'] for each in remains)}"
    state = replace(state, status=OperationStatus.ABANDONED)
    return Decision(state, Finish(state.status), (Raise(Severity.WARNING, text, {"remaining": remains}),))
