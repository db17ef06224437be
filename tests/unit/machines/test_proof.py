"""What proves that a machine no longer uses an image: nothing that somebody without a ticket can bring about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.appliance import ApplianceDesired, AppliancePhase
from openqrm.domain.machine import Stage, TokenPurpose
from openqrm.domain.resource import Health, Phase, Resource
from openqrm.operations import changes, leases, machine_orders, machine_tokens
from openqrm.operations.conditions import machine_back, machine_gone
from openqrm.operations.machine_messages import Done
from openqrm.operations.machine_tokens import Session
from openqrm.plugin_api.changes import ChangeCall

if TYPE_CHECKING:
    from tests.unit.machines.conftest import World

BOOT = "00000000-a"


def gone(world: World, number: int, **given: Any) -> bool:
    call = ChangeCall(1, {"resource_id": number, "boot_id": BOOT} | given)
    with world.database.read() as reader:
        return machine_gone(reader, call).done


def back(world: World, number: int, **given: Any) -> bool:
    with world.database.read() as reader:
        return machine_back(reader, ChangeCall(1, {"resource_id": number} | given)).done


def said(world: World, order_id: int, number: int, status: int, stage: Stage = Stage.INITRAMFS) -> None:
    with world.database.write() as writer:
        machine_orders.done(writer, Session(1, number, BOOT, stage, 0), Done(order_id, status, ""))


def deploying(world: World) -> tuple[int, int]:
    """A machine that was ordered to deploy: its id and the order's."""
    number = world.register(BOOT).resource.id
    world.lease(number)
    world.phase(number, "deploy")
    return number, world.order(number, "deploy").id


def recall(world: World, order_id: int) -> None:
    with world.database.write() as writer:
        changes.recall_order(writer, ChangeCall(1, {}, {"order_id": order_id}))


def stopping(world: World) -> int:
    """A machine that was ordered back to idle out of its image."""
    number, _ = deploying(world)
    world.phase(number, "registered-image")
    world.appliance_becomes(AppliancePhase.STOPPING, ApplianceDesired.STOPPED)
    world.phase(number, "return")
    world.order(number, "idle")
    return number


def test_a_made_up_boot_is_no_proof_and_one_with_a_ticket_is(world: World) -> None:
    number = stopping(world)
    world.refused("00000000-evil")
    assert not gone(world, number)
    world.register("00000000-b", ticket=world.ticket(number))
    assert gone(world, number)


def test_a_stop_of_a_machine_that_lost_its_ticket_ends_when_the_storage_can_prove_it(world: World) -> None:
    number = stopping(world)
    world.refused("00000000-b")
    with world.database.write() as writer:
        writer.update(writer.get(Resource, number), health=Health.LOST)
    assert not gone(world, number)
    assert gone(world, number, revocable=True)


def test_an_image_that_says_it_goes_idle_is_not_gone_yet(world: World) -> None:
    number = stopping(world)
    said(world, world.orders(number)[-1].id, number, 0, Stage.IMAGE)
    assert not gone(world, number)


def test_an_initramfs_that_is_told_to_go_idle_proves_that_nothing_is_mounted(world: World) -> None:
    number, _ = deploying(world)
    world.phase(number, "return")
    idle = world.order(number, "idle")
    assert not gone(world, number)
    said(world, idle.id, number, 0)
    assert gone(world, number)


@pytest.mark.parametrize("phase", [each for each in Phase if each is not Phase.OFF])
def test_no_phase_in_the_same_boot_gives_a_machine_back(world: World, phase: Phase) -> None:
    number, _ = deploying(world)
    with world.database.write() as writer:
        writer.update(writer.get(Resource, number), phase=phase)
    assert not back(world, number)


def test_a_machine_that_is_off_or_was_never_told_is_back(world: World) -> None:
    number = world.register(BOOT).resource.id
    assert back(world, number)
    world.order(number, "deploy")
    with world.database.write() as writer:
        writer.update(writer.get(Resource, number), phase=Phase.OFF)
    assert back(world, number)


@pytest.mark.parametrize(("status", "proved"), [(1, True), (2, False)])
def test_a_deployment_that_failed_and_was_undone_gives_the_machine_back(
    world: World, status: int, proved: bool
) -> None:
    number, order = deploying(world)
    said(world, order, number, status)
    assert back(world, number) is proved
    recall(world, order)
    with world.database.write() as writer:
        leases.give_back_resource(writer, ChangeCall(1, {"resource_id": number}))
    assert back(world, number) is proved, "what it could not unmount may be in use"
    world.register("00000000-b", ticket=world.ticket(number))
    assert back(world, number)


def test_a_machine_that_is_late_is_not_back_yet_and_a_lost_one_can_be_revoked(world: World) -> None:
    number, order = deploying(world)
    recall(world, order)
    for health, proved in [(Health.LATE, False), (Health.UNKNOWN, False), (Health.LOST, True)]:
        with world.database.write() as writer:
            writer.update(writer.get(Resource, number), health=health)
        assert not back(world, number)
        assert back(world, number, revocable=True) is proved


def test_an_image_that_comes_up_after_it_was_called_off_is_told_to_go_back(world: World) -> None:
    number, order = deploying(world)
    with world.database.write() as writer:
        token = machine_tokens.issue(writer, number, TokenPurpose.ADMISSION, Stage.IMAGE, BOOT, 1)
    recall(world, order)
    with world.database.write() as writer:
        leases.give_back_resource(writer, ChangeCall(1, {"resource_id": number}))
    taken = world.register(BOOT, stage="image", token=token, generation=1)
    assert taken.resource.phase is Phase.RETURNING
    assert not back(world, number, revocable=True)
    with world.database.read() as reader:
        session = machine_tokens.session_of(reader, taken.token)
        assert session is not None
        (idle,) = machine_orders.pending(reader, number, session.boot_id)
    assert idle.verb == "idle"
    said(world, idle.id, number, 0, Stage.IMAGE)
    assert not back(world, number, revocable=True), "it only said that it goes"
    world.register("00000000-b", ticket=world.ticket(number))
    assert back(world, number)


def test_a_machine_that_never_answered_is_ordered_back_and_says_so(world: World) -> None:
    number, order = deploying(world)
    recall(world, order)
    assert [(one.verb, one.state) for one in world.orders(number)] == [("deploy", "void"), ("idle", "open")]
    assert not back(world, number)
    said(world, world.orders(number)[-1].id, number, 0)
    assert world.resource(number).phase is Phase.IDLE, "also when it answers before the phase was set back"
    assert back(world, number)
