"""What a machine tells of its hardware when it registers: refused, cut, or taken as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from openqrm.domain.network import Nic
from openqrm.domain.resource import Health, Resource
from openqrm.operations.machine_report import Report

if TYPE_CHECKING:
    from tests.unit.machines.conftest import World


@pytest.mark.parametrize(
    "wrong",
    [
        {"mac": "52:54:00:00:00"},
        {"mac": "01:00:00:00:00:01"},
        {"boot_id": "x"},
        {"boot_id": "a" * 65},
        {"stage": "firmware"},
        {"memory_mb": "much"},
        {"nics": [{}] * 257},
        {"ssh_host_keys": ["k" * 4001]},
        {"token": "t" * 201},
        {"generation": -1},
    ],
)
def test_a_malformed_report_is_refused(world: World, wrong: dict[str, object]) -> None:
    body = world.report().model_dump(mode="json")
    Report.model_validate(body)
    with pytest.raises(ValidationError):
        Report.model_validate(body | wrong)


def test_of_a_great_many_network_cards_the_first_ones_are_kept(world: World) -> None:
    cards = [{"name": f"eth{i}", "mac": f"52:54:00:00:01:{i:02x}"} for i in range(200)]
    assert world.register(nics=cards).resource.nic_count == 32
    with world.database.read() as reader:
        assert reader.count(Nic) == 33, "the one it boots from is always among them"


@pytest.mark.parametrize("present", ["heard", "leased", "gone"])
def test_a_card_moves_only_from_a_machine_that_is_neither_heard_nor_leased(world: World, present: str) -> None:
    card = {"name": "eth1", "mac": "52:54:00:00:00:99"}
    owner = world.register(nics=[card]).resource.id
    if present == "leased":
        world.lease(owner)
    if present != "heard":
        with world.database.write() as writer:
            writer.update(writer.get(Resource, owner), health=Health.LOST)
    taker = world.register(mac="52:54:00:00:00:02", nics=[card]).resource.id
    with world.database.read() as reader:
        (nic,) = reader.find(Nic, mac="52:54:00:00:00:99")
    assert nic.resource_id == (taker if present == "gone" else owner)
    assert any("not believed" in text for text in world.events("warning")) is (present != "gone")


def test_odd_hardware_is_tolerated(world: World) -> None:
    nics = [
        {"name": "ib0", "mac": "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:0e:78:31", "speed_mbit": -1},
        {"name": "eth0", "mac": "52:54:00:00:00:01", "speed_mbit": -1, "new_field": 1},
    ]
    taken = world.register(nics=nics, dmi={"vendor": "A\x01C\u0000me", "serial": "\n"}, future="x")
    assert taken.resource.nic_count == 2
    assert taken.resource.inventory["dmi"]["vendor"] == "ACme"
    with world.database.read() as reader:
        assert [nic.mac for nic in reader.find(Nic)] == ["52:54:00:00:00:01"]
