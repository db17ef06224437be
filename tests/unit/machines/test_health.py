"""Health: a pure rule on silence, and its application."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from openqrm.domain.resource import SERVER_ID, Health, Phase, Resource
from openqrm.operations import deadlines
from openqrm.operations.heartbeats import Limits, Verdict, Watched, apply, judge, newest, verdicts, watched

if TYPE_CHECKING:
    from tests.unit.machines.conftest import World

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Limits.of(10)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("silent", "health"), [(0, "ok"), (34, "ok"), (36, "late"), (59, "late"), (60, "lost"), (3600, "lost")]
)
def test_silence_decides(silent: float, health: str) -> None:
    assert judge(ago(silent), ago(9999), NOW, LIMITS) == health


@pytest.mark.parametrize(
    ("seen", "listening", "health"),
    [(3600, 1, "unknown"), (3600, 34, "unknown"), (3600, 40, "late"), (3600, 61, "lost"), (2, 1, "ok")],
)
def test_a_controller_that_just_started_takes_nobody_for_lost(seen: float, listening: float, health: str) -> None:
    assert judge(ago(seen), ago(listening), NOW, LIMITS) == health


def test_a_machine_never_heard_is_lost_only_after_we_listened_long_enough() -> None:
    assert judge(None, ago(30), NOW, LIMITS) is Health.UNKNOWN
    assert judge(None, ago(61), NOW, LIMITS) is Health.LOST


def test_a_slow_pace_stretches_the_limits() -> None:
    assert Limits.of(60) == Limits(210, 270)


def machine(number: int, phase: Phase, health: Health, since: datetime | None = None) -> Watched:
    return Watched(number, phase, since, health)


def seen_now(world: World, number: int) -> Watched:
    with world.database.read() as reader:
        return next(one for one in watched(reader, list(Phase)) if one.id == number)


def test_what_is_watched_is_neither_the_server_nor_made_by_hand_and_in_the_right_phase(world: World) -> None:
    with world.database.write() as writer:
        writer.insert(Resource(id=SERVER_ID, name="server", phase=Phase.ACTIVE))
        writer.insert(Resource(name="box", manual=True, phase=Phase.IDLE))
        writer.insert(Resource(name="off", phase=Phase.OFF))
        one = writer.insert(Resource(name="node", phase=Phase.IDLE, phase_since=NOW, health=Health.LATE))
    with world.database.read() as reader:
        assert watched(reader, [Phase.IDLE, Phase.ACTIVE]) == [(one.id, Phase.IDLE, NOW, Health.LATE)]


def test_only_watched_machines_whose_health_changes_are_touched() -> None:
    rows = [
        machine(1, Phase.IDLE, Health.OK),
        machine(2, Phase.IDLE, Health.OK),
        machine(4, Phase.OFF, Health.OK),
        machine(5, Phase.ACTIVE, Health.LOST),
        machine(6, Phase.BOOTING, Health.OK),
    ]
    seen = {1: ago(5), 2: ago(70), 5: ago(1)}
    found = verdicts(rows, seen, ago(9999), NOW, LIMITS)
    assert [(one.resource.id, str(one.health)) for one in found] == [(2, "lost"), (5, "ok")]


def test_a_machine_that_just_registered_is_heard_although_its_last_beat_is_of_an_earlier_boot() -> None:
    rows = [machine(1, Phase.IDLE, Health.OK)]
    seen = {1: ago(300)}
    assert len(verdicts(rows, seen, ago(9999), NOW, LIMITS)) == 1
    assert verdicts(rows, newest(seen, {1: ago(3), 2: ago(1)}), ago(9999), NOW, LIMITS) == []
    assert newest({1: ago(1)}, {1: ago(9)}) == {1: ago(1)}


def test_a_change_of_health_is_stored_with_an_event_and_a_race_is_left_alone(world: World) -> None:
    idle = world.register().resource
    moved = world.register(mac="52:54:00:00:00:02").resource
    seen = [Verdict(seen_now(world, one.id), Health.LOST) for one in (idle, moved)]
    world.phase(moved.id, "deploy")
    with world.database.write() as writer:
        assert apply(writer, seen) == 1
    assert world.resource(idle.id).health is Health.LOST
    assert world.resource(moved.id).health is Health.OK
    assert "node-525400000001 is lost: no heartbeat for too long" in world.events("error")


def test_silence_on_the_way_to_another_system_alarms_nobody(world: World) -> None:
    number = world.register().resource.id
    world.phase(number, "deploy")
    with world.database.write() as writer:
        apply(writer, [Verdict(seen_now(world, number), Health.LATE)])
    assert world.events("warning") == []


@pytest.mark.parametrize(
    ("phase", "seconds", "event"),
    [
        (Phase.BOOTING, 961, "boot-late"),
        (Phase.BOOTING, 959, None),
        (Phase.DEPLOYING, 961, "deploy-late"),
        (Phase.RETURNING, 961, "return-late"),
        (Phase.IDLE, 10**6, None),
        (Phase.ACTIVE, 10**6, None),
    ],
)
def test_a_transient_phase_ends_after_its_deadline(phase: Phase, seconds: float, event: str | None) -> None:
    row = machine(1, phase, Health.OK, ago(seconds))
    found = [limit.event for _, limit in deadlines.overdue([row], NOW)]
    assert found == ([event] if event else [])


def test_a_machine_that_never_came_back_is_new_again_in_the_end(world: World) -> None:
    number = world.register().resource.id
    world.phase(number, "deploy")
    for expected in (Phase.BOOTING, Phase.NEW):
        late = seen_now(world, number)
        with world.database.write() as writer:
            found = deadlines.overdue([late], writer.now + timedelta(hours=1))
            assert deadlines.apply(writer, found) == 1
            assert deadlines.apply(writer, found) == 0, "it has moved meanwhile"
        assert world.resource(number).phase is expected
    assert len(world.events("warning")) == 2
