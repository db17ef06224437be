"""The engine's rules, one by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.errors import ConflictError
from openqrm.domain.event import Severity
from openqrm.domain.operation import OPERATION_STATES, OperationStatus, StepStatus
from openqrm.engine.core import DEFAULT, advance
from openqrm.engine.messages import (
    Abandon,
    Act,
    Cancel,
    Claimed,
    Decision,
    Failed,
    Finish,
    Planned,
    Prepare,
    Prepared,
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
from openqrm.engine.state import OperationState, Policy, StepState

if TYPE_CHECKING:
    from openqrm.engine.messages import Happening

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BROKEN = Failed({"code": "x", "detail": "broken"})
FINAL = replace(BROKEN, retryable=False)


def step(name: str, **fields: Any) -> StepState:
    return StepState(name=name, **fields)


def operation(*steps: StepState, **fields: Any) -> OperationState:
    return OperationState(7, "appliance.start", fields.pop("status", OperationStatus.QUEUED), steps, **fields)


def play(state: OperationState, *events: Happening, now: datetime = NOW, policy: Policy = DEFAULT) -> Decision:
    decision = Decision(state)
    for event in events:
        if isinstance(event, Timer) and isinstance(decision.command, Sleep):
            now = decision.command.until
        decision = advance(decision.state, event, now, policy)
    return decision


def statuses(state: OperationState) -> list[str]:
    return [str(each.status) for each in state.steps]


def test_steps_act_in_order_and_are_recorded_acting_before_they_act() -> None:
    decision = play(operation(step("a"), step("b")), Claimed())
    assert decision.command == Act("a")
    assert statuses(decision.state) == ["acting", "pending"]
    decision = play(decision.state, Succeeded({"id": 1}))
    assert decision.command == Act("b")
    assert decision.state.step("a").output == {"id": 1}
    decision = play(decision.state, Succeeded())
    assert decision.command == Finish(OperationStatus.DONE)
    assert decision.state.progress == 100


def test_an_operation_without_steps_is_done_at_once() -> None:
    assert play(operation(), Claimed()).command == Finish(OperationStatus.DONE)


def test_three_tries_in_all_with_growing_pauses() -> None:
    decision = play(operation(step("a")), Claimed(), BROKEN)
    assert decision.command == Sleep(NOW + timedelta(seconds=1))
    decision = play(decision.state, Timer(), BROKEN)
    assert decision.command == Sleep(NOW + timedelta(seconds=4))
    decision = play(decision.state, Timer())
    assert decision.command == Act("a")
    assert decision.state.step("a").attempts == 3
    decision = play(decision.state, BROKEN)
    assert decision.command == Undo("a")
    assert decision.state.status is OperationStatus.UNDOING
    assert decision.state.step("a").status is StepStatus.UNDOING
    (raised,) = decision.raised
    assert raised.severity is Severity.ERROR
    assert raised.data["attempts"] == 3
    assert raised.data["error"]["detail"] == "broken"


def test_a_policy_may_ask_for_fewer_tries_and_other_pauses() -> None:
    policy = Policy(tries=2, backoff=(7.0,))
    decision = play(operation(step("a")), Claimed(), BROKEN, policy=policy)
    assert decision.command == Sleep(NOW + timedelta(seconds=7))
    assert play(decision.state, Timer(), BROKEN, policy=policy).command == Undo("a")


def test_what_cannot_work_is_not_tried_again() -> None:
    assert play(operation(step("a")), Claimed(), FINAL).command == Undo("a")


def test_undo_goes_backwards_over_all_that_was_done_and_the_failed_step() -> None:
    state = operation(step("a"), step("b", inert=True), step("c"), step("d"), step("e"))
    decision = play(state, Claimed(), Succeeded(), Succeeded(), Succeeded(), FINAL)
    order = []
    while isinstance(decision.command, Undo):
        order.append(decision.command.step)
        decision = play(decision.state, Succeeded())
    assert order == ["d", "c", "a"]
    assert decision.command == Finish(OperationStatus.FAILED)
    assert statuses(decision.state) == ["undone", "undone", "undone", "undone", "pending"]
    assert decision.state.error == {"code": "x", "detail": "broken", "step": "d"}


def test_what_cannot_be_undone_stays_and_is_named() -> None:
    state = operation(step("a"), step("b", irreversible="the old content is gone"), step("c"))
    decision = play(state, Claimed(), Succeeded(), Succeeded(), FINAL)
    assert "cannot be undone: b" in decision.raised[0].text
    decision = play(decision.state, Succeeded())
    assert decision.command == Undo("a")
    decision = play(decision.state, Succeeded())
    assert statuses(decision.state) == ["undone", "done", "undone"]
    assert decision.state.error is not None
    assert decision.state.error["irreversible"] == ["b"]


def test_an_irreversible_step_that_failed_is_not_undone_either() -> None:
    decision = play(operation(step("a", irreversible="no way back")), Claimed(), FINAL)
    assert decision.command == Finish(OperationStatus.FAILED)
    assert statuses(decision.state) == ["failed"]


def stuck(**fields: Any) -> Decision:
    state = operation(step("a"), step("b"), **fields)
    return play(state, Claimed(), Succeeded(), FINAL, BROKEN, Timer(), BROKEN, Timer(), BROKEN)


def test_an_undo_that_fails_three_times_needs_attention() -> None:
    decision = stuck()
    assert decision.command == Finish(OperationStatus.ATTENTION)
    assert statuses(decision.state) == ["done", "stuck"]
    assert decision.state.error is not None
    assert [each["step"] for each in decision.state.error["remaining"]] == ["a", "b"]
    assert decision.state.error["step"] == "b"
    assert decision.raised[0].severity is Severity.ERROR


def test_resume_undoes_again_with_fresh_tries() -> None:
    resumed = play(stuck().state, Resume())
    assert resumed.command is None
    assert resumed.state.status is OperationStatus.UNDOING
    decision = play(resumed.state, Claimed())
    assert decision.command == Undo("b")
    assert decision.state.step("b").attempts == 4, (
        "a new try has a new number, or the gate would hand over an old result"
    )
    assert play(decision.state, Succeeded(), Succeeded()).command == Finish(OperationStatus.FAILED)
    again = play(decision.state, BROKEN, Timer(), BROKEN, Timer(), BROKEN)
    assert again.command == Finish(OperationStatus.ATTENTION)


def test_abandon_ends_it_and_says_what_remains() -> None:
    decision = play(stuck().state, Abandon())
    assert decision.command == Finish(OperationStatus.ABANDONED)
    assert decision.raised[0].severity is Severity.WARNING
    assert "a, b" in decision.raised[0].text


@pytest.mark.parametrize("event", [Resume(), Abandon()])
def test_only_what_needs_attention_is_resumed_or_abandoned(event: Happening) -> None:
    for status in set(OperationStatus) - {OperationStatus.ATTENTION}:
        with pytest.raises(ConflictError):
            advance(operation(step("a"), status=status), event, NOW)


def test_forward_only_never_undoes_and_goes_on_where_it_stuck() -> None:
    state = operation(step("a"), step("b"), step("c"), forward_only=True)
    decision = play(state, Claimed(), Succeeded(), BROKEN, Timer(), BROKEN, Timer(), BROKEN)
    assert decision.command == Finish(OperationStatus.ATTENTION)
    assert statuses(decision.state) == ["done", "stuck", "pending"]
    assert decision.state.error is not None
    assert [each["step"] for each in decision.state.error["remaining"]] == ["b", "c"]
    with pytest.raises(ConflictError):
        advance(play(state, Claimed()).state, Cancel(), NOW)
    decision = play(decision.state, Resume(), Claimed())
    assert decision.command == Act("b")
    assert play(decision.state, Succeeded(), Succeeded()).state.status is OperationStatus.DONE


def test_a_human_may_take_over_what_waits_for_a_host_that_is_gone_for_good() -> None:
    away = Failed({"code": "unreachable", "detail": "no route to host"})
    waiting = play(operation(step("a"), forward_only=True), Claimed(), away)
    cancelled = replace(waiting.state, cancelled=True)
    decision = advance(
        advance(cancelled, Timer(), NOW + timedelta(seconds=60)).state, away, NOW + timedelta(seconds=61)
    )
    assert decision.state.status is OperationStatus.ATTENTION
    resumed = advance(replace(decision.state, cancelled=False), Resume(), NOW + timedelta(seconds=90))
    assert resumed.state.status is OperationStatus.RUNNING


def test_forward_only_waits_for_a_host_that_is_away_and_says_so_once() -> None:
    away = Failed({"code": "unreachable", "detail": "no route to host"})
    decision = play(operation(step("plan", inert=True), step("b"), forward_only=True), Claimed())
    now, pauses, texts = NOW, [], []
    for _ in range(7):
        decision = advance(decision.state, away, now)
        assert isinstance(decision.command, Sleep)
        pauses.append((decision.command.until - now).total_seconds())
        texts += [(raised.severity, raised.text) for raised in decision.raised]
        now = decision.command.until
        decision = advance(decision.state, Timer(), now)
        assert decision.command == Act("plan")
    assert pauses == [1, 4, 16, 60, 60, 60, 60]
    ((severity, text),) = texts
    assert severity is Severity.WARNING
    assert "plan" in text
    assert "no route to host" in text
    assert play(decision.state, Succeeded(), Succeeded()).state.status is OperationStatus.DONE


def test_what_can_be_undone_does_not_wait_for_a_host_for_ever() -> None:
    away = Failed({"code": "unreachable", "detail": "no route to host"})
    decision = play(operation(step("a")), Claimed(), away, Timer(), away, Timer(), away)
    assert decision.state.status is OperationStatus.UNDOING


def test_an_undo_waits_for_a_host_that_comes_back_but_not_for_ever() -> None:
    away = Failed({"code": "unreachable", "detail": "no route to host"})
    decision = play(operation(step("a"), step("b")), Claimed(), Succeeded(), BROKEN, Timer(), BROKEN, Timer(), BROKEN)
    assert decision.command == Undo("b")
    pauses = []
    for number in range(DEFAULT.away_tries - 1):
        waiting = play(decision.state, away)
        assert waiting.state.status is OperationStatus.UNDOING, number
        assert isinstance(waiting.command, Sleep)
        pauses.append((waiting.command.until - NOW).total_seconds())
        decision = play(waiting.state, Timer())
    assert pauses[:4] == [1, 4, 16, 60]
    assert max(pauses) == DEFAULT.longest
    assert play(decision.state, Succeeded(), Succeeded()).command == Finish(OperationStatus.FAILED)
    stays_away = play(decision.state, away)
    assert stays_away.command == Finish(OperationStatus.ATTENTION)


def test_after_a_crash_a_step_in_the_air_is_verified_first() -> None:
    state = play(operation(step("a", verifiable=True), step("b")), Claimed()).state
    decision = play(state, Claimed())
    assert decision.command == Verify("a")
    assert play(decision.state, Verified(in_place=True)).command == Act("b")
    again = play(decision.state, Verified(in_place=False))
    assert again.command == Act("a")
    assert again.state.step("a").attempts == 1, "the gate hands over the result of the same try"


def test_after_a_crash_a_step_without_verify_acts_again() -> None:
    state = play(operation(step("a")), Claimed()).state
    assert play(state, Claimed()).command == Act("a")


def test_a_crash_while_pausing_keeps_the_pause_and_the_count() -> None:
    state = play(operation(step("a", verifiable=True)), Claimed(), BROKEN).state
    assert play(state, Claimed()).command == Sleep(NOW + timedelta(seconds=1))
    late = advance(state, Claimed(), NOW + timedelta(seconds=60))
    assert late.command == Act("a")
    assert late.state.step("a").attempts == 2


def test_a_crash_in_the_middle_of_undoing_undoes_again() -> None:
    state = play(operation(step("a"), step("b")), Claimed(), Succeeded(), FINAL).state
    decision = play(state, Claimed())
    assert decision.command == Undo("b")
    assert play(decision.state, Succeeded(), Succeeded()).command == Finish(OperationStatus.FAILED)


def test_cancel_undoes() -> None:
    decision = play(operation(step("a", status=StepStatus.DONE), step("b")), Cancel())
    assert decision.command == Undo("a")
    running = play(operation(step("a"), step("b")), Claimed(), Succeeded(), BROKEN, Cancel())
    assert running.command == Undo("b")
    assert running.state.error is not None
    assert running.state.error["code"] == "cancelled"


def test_a_cancel_seen_when_the_last_step_is_done_still_undoes() -> None:
    state = replace(play(operation(step("a")), Claimed()).state, cancelled=True)
    assert play(state, Succeeded()).command == Undo("a")


@pytest.mark.parametrize("status", ["done", "failed", "attention", "abandoned"])
def test_what_is_over_cannot_be_cancelled(status: str) -> None:
    with pytest.raises(ConflictError):
        advance(operation(status=OperationStatus(status)), Cancel(), NOW)


def test_a_write_records_what_was_there_before_it_acts() -> None:
    decision = play(operation(step("w", prepares=True)), Claimed())
    assert decision.command == Prepare("w")
    unprepared = play(decision.state, FINAL)
    assert unprepared.command == Finish(OperationStatus.FAILED), "nothing was written, so nothing is restored"
    decision = play(decision.state, Prepared({"previous": None}))
    assert decision.command == Act("w")
    assert play(decision.state, FINAL).command == Undo("w")


def test_a_change_is_never_in_the_air() -> None:
    decision = play(operation(step("c", atomic=True), step("d")), Claimed())
    assert decision.command == Act("c")
    assert statuses(decision.state) == ["pending", "pending"]
    decision = play(decision.state, Succeeded({"id": 3}), FINAL)
    assert [each.attempts for each in decision.state.steps] == [1, 1]
    decision = play(decision.state, Succeeded())
    assert decision.command == Undo("c")
    assert play(decision.state, Succeeded()).command == Finish(OperationStatus.FAILED)


def test_a_change_that_failed_left_nothing_behind() -> None:
    decision = play(operation(step("a"), step("c", atomic=True)), Claimed(), Succeeded(), BROKEN, Timer(), BROKEN)
    assert decision.state.step("c").attempts == 2
    decision = play(decision.state, Timer(), BROKEN)
    assert decision.command == Undo("a")
    assert decision.state.step("c").status is StepStatus.UNDONE


def test_planned_steps_follow_their_planning_step() -> None:
    decision = play(operation(step("plan", inert=True), step("z")), Claimed(), Planned((step("a"), step("b"))))
    assert [each.name for each in decision.state.steps] == ["plan", "a", "b", "z"]
    assert decision.command == Act("a")


def test_a_refused_step_is_not_tried_again_and_left_nothing() -> None:
    refused = Refused({"code": "stale", "detail": "a later generation was here"})
    decision = play(operation(step("a"), step("b")), Claimed(), Succeeded(), refused)
    assert decision.command == Undo("a")
    assert decision.state.step("b").status is StepStatus.UNDONE
    assert play(decision.state, refused).command == Finish(OperationStatus.ATTENTION)


def test_a_refused_step_that_may_have_acted_before_a_crash_is_undone() -> None:
    state = play(operation(step("a")), Claimed(), Claimed()).state
    assert play(state, Refused({"code": "stale"})).command == Undo("a")


def test_an_admission_left_to_the_engine_waits_for_a_conflict_to_go() -> None:
    busy = Failed({"code": "no-capacity", "detail": "all are taken"}, conflict=True)
    state = operation(step("lease", atomic=True), step("a"), since=NOW - timedelta(seconds=50))
    decision = play(state, Claimed(), busy)
    assert decision.command == Rest(NOW + timedelta(seconds=6))
    assert decision.state.status is OperationStatus.QUEUED
    assert decision.state.step("lease").attempts == 0
    later = play(replace(decision.state), Claimed())
    assert later.command == Act("lease")
    assert later.state.not_before is None
    started = play(state, Claimed(), Succeeded(), busy)
    assert isinstance(started.command, Sleep), "a conflict later on is an ordinary failure"


def test_progress_counts_known_steps() -> None:
    state = play(operation(step("a"), step("b"), step("c")), Claimed(), Succeeded()).state
    assert state.progress == 33


def test_every_change_of_status_is_in_the_state_table() -> None:
    table = {(row.source, row.target) for row in OPERATION_STATES.rows}
    decision = Decision(operation(step("a"), step("b")))
    events: list[Happening] = [Claimed(), Succeeded(), FINAL, FINAL, Resume(), Claimed(), FINAL, Abandon()]
    for event in events:
        before = decision.state.status
        decision = advance(decision.state, event, NOW)
        assert decision.state.status is before or (before, decision.state.status) in table
