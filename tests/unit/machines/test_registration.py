"""Who is believed, and what becomes of a machine that registers."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from openqrm.api.node.strangers import Strangers
from openqrm.domain.appliance import AppliancePhase
from openqrm.domain.lease import Lease
from openqrm.domain.machine import BootTicket, MachineToken, Stage, TokenPurpose
from openqrm.domain.network import Nic
from openqrm.domain.resource import Desired, Health, Phase, Power, Resource
from openqrm.domain.storage import Image
from openqrm.operations import machine_tokens, machines

if TYPE_CHECKING:
    from tests.unit.machines.conftest import World


def test_an_unknown_machine_becomes_an_idle_resource_with_its_inventory(world: World) -> None:
    taken = world.register(cpus=4, memory_mb=2048, disks=[{"name": "vda", "size_mb": 1024}], ssh_host_keys=["ssh-a A"])
    resource = world.resource(taken.resource.id)
    assert taken.new
    assert (resource.name, resource.type, resource.phase) == ("node-525400000001", "physical", Phase.IDLE)
    assert (resource.desired, resource.power, resource.health) == (Desired.IDLE, Power.ON, Health.OK)
    assert (resource.cpus, resource.memory_mb, resource.nic_count) == (4, 2048, 1)
    assert resource.inventory["disks"][0]["name"] == "vda"
    assert resource.ssh_host_keys == ("ssh-a A",)
    with world.database.read() as reader:
        (nic,) = reader.find(Nic)
    assert (nic.resource_id, nic.mac, nic.boot, nic.driver) == (resource.id, resource.mac, True, "virtio_net")


def test_only_hashes_of_tokens_and_tickets_are_stored(world: World) -> None:
    taken = world.register()
    ticket = world.ticket(taken.resource.id)
    with world.database.read() as reader:
        (token_row,), (ticket_row,) = reader.find(MachineToken), reader.find(BootTicket)
    assert taken.token not in str(token_row)
    assert ticket not in str(ticket_row)


def test_a_token_speaks_for_its_boot_until_the_next_registration_replaces_it(world: World) -> None:
    first = world.register("00000000-a")
    again = world.register("00000000-a", token=first.token)
    with world.database.read() as reader:
        assert machine_tokens.session_of(reader, first.token) is None
        session = machine_tokens.session_of(reader, again.token)
        assert machine_tokens.session_of(reader, "") is None
    assert session is not None
    assert (session.resource_id, session.boot_id, session.stage) == (first.resource.id, "00000000-a", "initramfs")


def test_ssh_host_keys_are_those_of_the_present_boot(world: World) -> None:
    number = world.register(ssh_host_keys=["ssh-ed25519 OLD"]).resource.id
    world.register(ssh_host_keys=["ssh-ed25519 NEW"])
    assert world.resource(number).ssh_host_keys == ("ssh-ed25519 NEW",)


def test_another_boot_of_a_machine_that_is_heard_is_contested_and_changes_nothing(world: World) -> None:
    first = world.register("00000000-a")
    world.heard.add(first.resource.id)
    assert world.try_register(world.report("00000000-b")) == machines.Contested(first.resource.id)
    assert world.resource(first.resource.id).boot_id == "00000000-a"
    with world.database.write() as writer:
        refused = machines.second_machine(writer, first.resource.id)
    assert refused.status == 409
    assert any("another live machine" in text for text in world.events("error"))


def test_a_ticket_speaks_for_a_boot_even_while_the_old_one_seems_alive(world: World) -> None:
    first = world.register("00000000-a")
    ticket = world.ticket(first.resource.id)
    world.heard.add(first.resource.id)
    assert world.register("00000000-b", ticket=ticket).resource.boot_id == "00000000-b"


def test_a_ticket_may_be_shown_again_by_the_boot_that_redeemed_it(world: World) -> None:
    ticket = world.ticket(world.register("00000000-a").resource.id)
    world.register("00000000-b", ticket=ticket)
    world.register("00000000-b", ticket=ticket)
    assert world.events("error") == []


@pytest.mark.parametrize("twin", [False, True], ids=["the same ticket", "a twin of the ticket"])
def test_a_second_redemption_stops_the_deployment(world: World, twin: bool) -> None:
    first = world.register("00000000-a")
    world.lease(first.resource.id)
    world.phase(first.resource.id, "deploy")
    world.order(first.resource.id, "deploy")
    ticket = world.ticket(first.resource.id)
    other = world.ticket(first.resource.id) if twin else ticket
    genuine = world.register("00000000-b", ticket=ticket)
    refused = world.refused("00000000-c", ticket=other)
    assert refused.status == 409
    assert [order.state for order in world.orders(first.resource.id)] == ["void"]
    assert any("redeemed twice" in text for text in world.events("error"))
    with world.database.read() as reader:
        assert machine_tokens.session_of(reader, genuine.token) is None, "nobody can tell which one is genuine"


def test_a_ticket_that_is_too_old_or_of_another_machine_gives_idle_rights_only(world: World) -> None:
    mine = world.register("00000000-a")
    other = world.register("00000000-o", mac="52:54:00:00:00:02")
    foreign = world.ticket(other.resource.id)
    world.register("00000000-b", ticket=foreign)
    assert world.orders(mine.resource.id) == []
    assert any("too old" in text for text in world.events("warning"))
    late = world.ticket(mine.resource.id)
    with world.database.write() as writer:
        for row in writer.find(BootTicket):
            writer.update(row, expires_at=writer.now)
    with world.database.write() as writer:
        resource = writer.get(Resource, mine.resource.id)
        assert machine_tokens.redeem(writer, resource, late, "00000000-z") is machine_tokens.TicketVerdict.STALE


def test_the_restart_of_a_leased_machine_needs_the_ticket(world: World) -> None:
    number = world.register("00000000-a").resource.id
    world.lease(number, phase=AppliancePhase.RUNNING)
    assert world.refused("00000000-b").status == 401, "it tries again"
    assert world.orders(number) == []
    assert any("without a valid boot ticket" in text for text in world.events("error"))
    taken = world.register("00000000-c", ticket=world.ticket(number))
    (order,) = world.orders(number)
    assert (order.verb, order.boot_id, order.state) == ("deploy", "00000000-c", "open")
    assert taken.resource.phase is Phase.DEPLOYING


def test_a_deployment_goes_on_after_a_boot_with_the_ticket(world: World) -> None:
    number = world.register("00000000-a").resource.id
    world.lease(number)
    world.phase(number, "deploy")
    world.order(number, "deploy")
    taken = world.register("00000000-b", ticket=world.ticket(number))
    (order,) = world.orders(number)
    assert (order.state, order.boot_id, taken.resource.phase) == ("open", "00000000-b", Phase.DEPLOYING)


@pytest.mark.parametrize("ticket", ["", "made up", "expired"])
@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.BOOTING, Phase.DEPLOYING, Phase.ACTIVE, Phase.RETURNING])
def test_nobody_without_a_valid_ticket_moves_a_machine_that_is_leased(world: World, phase: Phase, ticket: str) -> None:
    taken = world.register("00000000-a")
    number = taken.resource.id
    world.lease(number)
    world.order(number, "deploy")
    if ticket == "expired":
        ticket = world.ticket(number)
        with world.database.write() as writer:
            for row in writer.find(BootTicket):
                writer.update(row, expires_at=writer.now - timedelta(seconds=1))
    with world.database.write() as writer:
        before = writer.update(writer.get(Resource, number), phase=phase)
    for boot in ("00000000-b", "00000000-a"):
        assert world.refused(boot, ticket=ticket, ssh_host_keys=["ssh-ed25519 EVIL"]).status == 401
    after = world.resource(number)
    assert (after.phase, after.boot_id, after.ssh_host_keys) == (phase, "00000000-a", before.ssh_host_keys)
    assert [order.state for order in world.orders(number)] == ["open"]
    with world.database.read() as reader:
        assert machine_tokens.session_of(reader, taken.token) is not None, "the genuine machine goes on"
    assert any("without a valid boot ticket" in text for text in world.events("error"))


def test_a_machine_that_lost_its_ticket_is_taken_in_when_its_lease_is_released(world: World) -> None:
    number = world.register("00000000-a").resource.id
    lease = world.lease(number, phase=AppliancePhase.RUNNING)
    world.refused("00000000-b")
    with world.database.write() as writer:
        writer.update(lease, state="released", held_image=None, held_resource=None)
    assert world.register("00000000-b").resource.phase is Phase.IDLE


def test_a_doubt_about_a_boot_is_logged_once(world: World) -> None:
    number = world.register("00000000-a").resource.id
    world.lease(number)
    strangers = Strangers(lambda: 0.0)
    for _ in range(3):
        with world.database.write() as writer:
            around = machines.Circumstances(lambda _: False, "10.99.0.66", strangers.unheard_of)
            machines.register(writer, world.report("00000000-b"), around)
    assert len(world.events("error")) == 1


def test_machines_that_nobody_knows_are_taken_in_at_a_limited_pace(world: World) -> None:
    now = [0.0]
    strangers = Strangers(lambda: now[0])
    assert sum(strangers.may_enrol() for _ in range(3000)) == 2000
    now[0] += 1
    assert sum(strangers.may_enrol() for _ in range(3000)) == 20
    known = world.register().resource
    around = machines.Circumstances(lambda _: False, may_enrol=strangers.may_enrol)
    with world.database.write() as writer:
        refused = machines.register(writer, world.report(mac="52:54:00:00:00:02"), around)
        assert isinstance(machines.register(writer, world.report(mac=known.mac or ""), around), machines.Registered)
    assert isinstance(refused, machines.Refused)
    assert refused.status == 503, "it tries again"


def test_no_machines_are_added_while_very_many_are_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "SILENT", 2)
    for number in (1, 2):
        taken = world.register(mac=f"52:54:00:00:00:0{number}").resource
        with world.database.write() as writer:
            writer.update(taken, health=Health.LOST)
    assert world.refused(mac="52:54:00:00:00:03").status == 503
    assert any("Remove those that are gone" in text for text in world.events("error"))
    world.register(mac="52:54:00:00:00:01")
    assert world.register(mac="52:54:00:00:00:03").new


def test_a_machine_with_other_keys_or_another_address_has_moved(world: World) -> None:
    first = world.register("00000000-a", ssh_host_keys=["ssh-ed25519 A"])
    assert first.moved
    assert not world.register("00000000-b", ssh_host_keys=["ssh-ed25519 A"]).moved
    assert world.register("00000000-c", ssh_host_keys=["ssh-ed25519 B"]).moved


@pytest.mark.parametrize("state", ["open", "done"])
def test_a_deployment_that_was_called_off_does_not_go_on_after_the_boot(world: World, state: str) -> None:
    number = world.register("00000000-a").resource.id
    world.lease(number)
    world.phase(number, "deploy")
    world.order(number, "deploy")
    idle = world.order(number, "idle")
    with world.database.write() as writer:
        writer.update(idle, state=state)
    taken = world.register("00000000-b", ticket=world.ticket(number))
    assert [order.state for order in world.orders(number)] == ["void", "done"]
    assert taken.resource.phase is Phase.IDLE


def test_a_new_boot_fulfils_idle_and_voids_what_was_meant_for_the_old_one(world: World) -> None:
    number = world.register("00000000-a").resource.id
    for verb in ("idle", "services", "reboot"):
        world.order(number, verb)
    world.register("00000000-b")
    assert [(order.verb, order.state) for order in world.orders(number)] == [
        ("idle", "done"),
        ("services", "void"),
        ("reboot", "done"),
    ]


def test_registering_again_in_the_same_boot_leaves_the_deployment_alone(world: World) -> None:
    taken = world.register("00000000-a")
    world.lease(taken.resource.id)
    world.phase(taken.resource.id, "deploy")
    world.order(taken.resource.id, "deploy")
    again = world.register("00000000-a", token=taken.token)
    assert again.resource.phase is Phase.DEPLOYING
    assert [order.state for order in world.orders(taken.resource.id)] == ["open"]
    assert world.refused("00000000-a").status == 401, "a boot id alone proves nothing while a deployment runs"


def admitted(world: World, number: int, boot: str, generation: int = 1) -> str:
    with world.database.write() as writer:
        return machine_tokens.issue(writer, number, TokenPurpose.ADMISSION, Stage.IMAGE, boot, generation)


def deploying(world: World) -> int:
    number = world.register("00000000-a").resource.id
    world.lease(number)
    world.phase(number, "deploy")
    world.order(number, "deploy")
    return number


def test_the_agent_inside_the_image_makes_the_machine_active(world: World) -> None:
    number = deploying(world)
    token = admitted(world, number, "00000000-a")
    taken = world.register("00000000-a", stage="image", token=token, generation=1)
    assert taken.resource.phase is Phase.ACTIVE
    assert [order.state for order in world.orders(number)] == ["done"]
    with world.database.read() as reader:
        (image,) = reader.find(Image)
        session = machine_tokens.session_of(reader, taken.token)
        assert machine_tokens.session_of(reader, token) is None, "an admission opens no stream"
    assert not image.fresh
    assert session is not None
    assert (session.stage, session.generation) == ("image", 1)
    again = world.register("00000000-a", stage="image", token=token, generation=1)
    assert again.resource.phase is Phase.ACTIVE, "an agent that restarts knows only its admission"


@pytest.mark.parametrize(
    ("boot", "generation", "token"),
    [("00000000-a", 2, True), ("00000000-b", 1, True), ("00000000-a", 1, False)],
    ids=["another generation", "another boot", "no token"],
)
def test_a_token_is_good_for_its_boot_and_generation_only(
    world: World, boot: str, generation: int, token: bool
) -> None:
    number = deploying(world)
    key = admitted(world, number, "00000000-a")
    refused = world.refused(boot, stage="image", generation=generation, token=key if token else "")
    assert refused.status == 401
    assert world.resource(number).phase is Phase.DEPLOYING


def test_an_image_whose_lease_was_released_is_turned_away(world: World) -> None:
    number = deploying(world)
    key = admitted(world, number, "00000000-a")
    with world.database.write() as writer:
        (lease,) = writer.find(Lease)
        writer.update(lease, state="released", held_image=None, held_resource=None)
    assert world.refused("00000000-a", stage="image", generation=1, token=key).status == 409


def test_an_unknown_machine_cannot_start_with_an_image(world: World) -> None:
    assert world.refused(stage="image", token="x", generation=1).status == 401
    with world.database.read() as reader:
        assert reader.find(Resource) == []


def test_a_closed_box_does_not_become_a_machine(world: World) -> None:
    with world.database.write() as writer:
        writer.insert(Resource(name="box", mac="52:54:00:00:00:01", manual=True, phase=Phase.UNKNOWN))
    assert world.refused().status == 409


def test_a_removed_resource_leaves_no_valid_token(world: World) -> None:
    taken = world.register()
    with world.database.write() as writer:
        machine_tokens.forget(writer, taken.resource.id)
    with world.database.read() as reader:
        assert machine_tokens.session_of(reader, taken.token) is None


@pytest.mark.parametrize(("connected", "after"), [(False, Phase.BOOTING), (True, Phase.IDLE)])
def test_anybody_can_ask_for_a_script_so_a_machine_that_is_heard_is_not_moved(
    world: World, connected: bool, after: Phase
) -> None:
    number = world.register().resource.id
    with world.database.write() as writer:
        machines.script_asked(writer, writer.get(Resource, number), connected=connected)
    assert world.resource(number).phase is after


@pytest.mark.parametrize("stage", [Stage.INITRAMFS, Stage.IMAGE])
def test_a_machine_that_is_heard_again_in_the_same_boot_is_what_it_was(world: World, stage: Stage) -> None:
    number = world.register("00000000-a").resource.id
    if stage is Stage.IMAGE:
        world.phase(number, "deploy")
        world.phase(number, "registered-image")
    before = world.resource(number).phase
    with world.database.write() as writer:
        machines.script_asked(writer, writer.get(Resource, number), connected=False)
    assert world.resource(number).phase is Phase.BOOTING
    with world.database.write() as writer:
        machines.set_right(writer, machine_tokens.Session(1, number, "00000000-other", stage, 0))
    assert world.resource(number).phase is Phase.BOOTING
    with world.database.write() as writer:
        machines.set_right(writer, machine_tokens.Session(1, number, "00000000-a", stage, 0))
    assert world.resource(number).phase is before


def test_asking_for_a_script_does_not_end_a_deployment(world: World) -> None:
    number = deploying(world)
    with world.database.write() as writer:
        assert not machines.script_asked(writer, writer.get(Resource, number), connected=False)
    assert world.resource(number).phase is Phase.DEPLOYING
