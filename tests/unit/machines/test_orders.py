"""Orders: who gets them, and what a machine's answers change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.event import Severity
from openqrm.domain.machine import Stage
from openqrm.domain.resource import MachineOrder, Phase
from openqrm.operations import machine_orders
from openqrm.operations.machine_messages import Ack, Done, Log, Message, OrderProgress
from openqrm.operations.machine_tokens import Session

if TYPE_CHECKING:
    from tests.unit.machines.conftest import World

BOOT = "00000000-a"


def said(world: World, number: int, *messages: Message, boot: str = BOOT, stage: Stage = Stage.INITRAMFS) -> None:
    session = Session(1, number, boot, stage, 0)
    with world.database.write() as writer:
        for message in messages:
            machine_orders.answered(writer, session, message)


def state(world: World, order: MachineOrder) -> tuple[str, int, str]:
    with world.database.read() as reader:
        row = reader.get(MachineOrder, order.id)
    return row.state, row.progress, row.text


def test_a_boot_is_given_its_open_and_acknowledged_orders_only(world: World) -> None:
    number = world.register(BOOT).resource.id
    first, second, third = (world.order(number, verb) for verb in ("inventory", "services", "deploy"))
    said(world, number, Ack(first.id), Done(second.id, 0, ""))
    with world.database.read() as reader:
        assert [one.id for one in machine_orders.pending(reader, number, BOOT)] == [first.id, third.id]
        assert machine_orders.pending(reader, number, "00000000-b") == []


def test_progress_and_result_are_kept_with_the_machines_words(world: World) -> None:
    number = world.register(BOOT).resource.id
    order = world.order(number, "inventory")
    said(world, number, Ack(order.id))
    assert state(world, order) == ("acknowledged", 0, "")
    said(world, number, OrderProgress(order.id, 40, "looking"))
    assert state(world, order) == ("acknowledged", 40, "looking")
    said(world, number, Done(order.id, 0, "inventory sent"))
    assert state(world, order) == ("done", 100, "inventory sent")
    said(world, number, Done(order.id, 1, "again"), Ack(order.id), OrderProgress(order.id, 1, ""))
    assert state(world, order) == ("done", 100, "inventory sent"), "a repeated answer changes nothing"


def test_a_failed_deployment_frees_the_machine_and_is_an_event(world: World) -> None:
    number = world.register(BOOT).resource.id
    world.phase(number, "deploy")
    order = world.order(number, "deploy")
    said(world, number, Done(order.id, 1, "the root could not be mounted"))
    assert state(world, order) == ("failed", 0, "the root could not be mounted")
    assert world.resource(number).phase is Phase.IDLE
    assert any("could not deploy: the root could not be mounted" in text for text in world.events("error"))


def test_a_failed_deployment_that_could_not_be_undone_does_not_make_the_machine_idle(world: World) -> None:
    number = world.register(BOOT).resource.id
    world.phase(number, "deploy")
    order = world.order(number, "deploy")
    said(world, number, Done(order.id, 2, "its mounts are in use"))
    assert state(world, order) == ("void", 0, "its mounts are in use")
    assert world.resource(number).phase is Phase.DEPLOYING
    assert any("its mounts are in use" in text for text in world.events("error"))


def test_no_machine_and_no_other_boot_answers_for_another(world: World) -> None:
    number = world.register(BOOT).resource.id
    other = world.register(BOOT, mac="52:54:00:00:00:02").resource.id
    order = world.order(number, "deploy")
    said(world, other, Done(order.id, 1, "sabotage"))
    said(world, number, Done(order.id, 1, "from the past"), boot="00000000-b")
    said(world, number, Ack(4711))
    assert state(world, order)[0] == "open"


def test_a_machine_that_is_idle_already_says_so_and_is_idle(world: World) -> None:
    number = world.register(BOOT).resource.id
    world.phase(number, "deploy")
    deploy = world.order(number, "deploy")
    world.phase(number, "return")
    order = world.order(number, "idle")
    with world.database.read() as reader:
        assert [one.verb for one in machine_orders.pending(reader, number, BOOT)] == ["idle"]
    said(world, number, Done(order.id, 0, "idle already"))
    assert world.resource(number).phase is Phase.IDLE
    assert state(world, deploy)[0] == "void"


def test_an_image_that_goes_idle_is_still_on_its_way(world: World) -> None:
    number = world.register(BOOT).resource.id
    world.phase(number, "deploy")
    world.phase(number, "registered-image")
    world.phase(number, "return")
    order = world.order(number, "idle")
    said(world, number, Done(order.id, 0, "going idle by kexec"), stage=Stage.IMAGE)
    assert world.resource(number).phase is Phase.RETURNING


def test_a_machine_that_powers_off_is_off(world: World) -> None:
    number = world.register(BOOT).resource.id
    order = world.order(number, "poweroff")
    said(world, number, Done(order.id, 0, "poweroff now"))
    assert world.resource(number).phase is Phase.OFF


def test_an_image_that_is_about_to_power_off_is_not_off_yet(world: World) -> None:
    number = world.register(BOOT).resource.id
    world.phase(number, "deploy")
    world.phase(number, "registered-image")
    order = world.order(number, "poweroff")
    said(world, number, Done(order.id, 0, "poweroff now"), stage=Stage.IMAGE)
    assert world.resource(number).phase is Phase.ACTIVE


def test_a_machine_may_log(world: World) -> None:
    number = world.register(BOOT).resource.id
    said(world, number, Log(Severity.WARNING, "no swap"))
    assert "node-525400000001: no swap" in world.events("warning")
