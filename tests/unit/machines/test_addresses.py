"""Addresses are given once, kept for life, and found without looking at all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.network import Address, AddressRange, Network, Nic
from openqrm.domain.resource import Phase, Resource
from openqrm.operations import addresses

if TYPE_CHECKING:
    from tests.unit.machines.conftest import World

    from openqrm.plugin_api.records import Reader


def mac(number: int) -> str:
    return f"52:54:00:00:00:{number:02x}"


def test_each_machine_gets_an_address_of_its_own_and_keeps_it(world: World) -> None:
    given = [world.register(mac=mac(number)).place for number in (1, 2, 3)]
    assert [(place.address, place.prefix) for place in given if place] == [
        ("10.99.0.20", 24),
        ("10.99.0.21", 24),
        ("10.99.0.22", 24),
    ]
    again = world.register(mac=mac(2))
    assert (again.resource.address, again.new) == ("10.99.0.21", False)
    with world.database.read() as reader:
        rows = reader.find(Address)
        assert [reader.get(Nic, row.nic_id or -1).mac for row in rows] == [mac(1), mac(2), mac(3)]


def test_an_address_that_was_given_back_is_found_again_after_the_end_of_the_range(world: World) -> None:
    numbers = [world.register(mac=mac(number)).resource.id for number in (1, 2, 3, 4)]
    with world.database.write() as writer:
        (row,) = writer.find(Address, address="10.99.0.21")
        writer.delete(Address, row.id)
        writer.update(writer.get(Resource, numbers[1]), address=None)
    assert world.register(mac=mac(5)).resource.address == "10.99.0.21"


def test_a_full_network_is_an_error_event_and_the_machine_stays_where_it_is(world: World) -> None:
    for number in (1, 2, 3, 4):
        world.register(mac=mac(number))
    taken = world.register(mac=mac(5))
    assert (taken.resource.address, taken.resource.phase) == ("10.99.0.201", Phase.IDLE)
    assert any("has no free machine address" in text for text in world.events("error"))


def test_gateway_and_closed_boxes_are_passed_over(world: World) -> None:
    with world.database.write() as writer:
        (network,) = writer.find(Network)
        writer.update(network, gateway="10.99.0.20")
        writer.insert(Resource(name="box", mac=mac(99), address="10.99.0.21", manual=True))
    assert world.register().resource.address == "10.99.0.22"


def test_a_full_network_is_found_out_by_a_constant_number_of_queries(world: World) -> None:
    counts = []
    for last in ("10.99.1.255", "10.99.7.255"):
        with world.database.write() as writer:
            (network,) = writer.find(Network)
            network = writer.update(network, cidr="10.99.0.0/16", machines=AddressRange(first="10.99.0.2", last=last))
            known = {row.address for row in writer.find(Address)}
            for number in range(2, 256 * (int(last.split(".")[2]) + 1)):
                address = f"10.99.{number >> 8}.{number & 255}"
                if address not in known:
                    writer.insert(Address(network_id=network.id, address=address, purpose="machine"))
            spy = Counting(writer)
            assert addresses.first_free(spy, network) is None
            counts.append(spy.queries)
    assert counts == [5, 5]


class Counting:
    """A reader that counts its queries."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.queries = 0

    def __getattr__(self, name: str) -> Any:
        self.queries += 1
        return getattr(self.reader, name)


def test_a_long_run_of_used_addresses_is_passed_in_windows(world: World) -> None:
    with world.database.write() as writer:
        (network,) = writer.find(Network)
        network = writer.update(network, machines=AddressRange(first="10.99.0.2", last="10.99.0.199"))
        for place in [*range(2, 150), 160]:
            writer.insert(Address(network_id=network.id, address=f"10.99.0.{place}", purpose="machine"))
        for place in range(161, 200):
            writer.insert(Address(network_id=network.id, address=f"10.99.0.{place}", purpose="other"))
        assert addresses.first_free(writer, network) == "10.99.0.150"


@pytest.mark.parametrize(("source", "expected"), [("192.168.7.9", "192.168.7.20"), ("10.99.0.201", "10.99.0.20")])
def test_the_network_a_machine_speaks_from_gives_the_address(world: World, source: str, expected: str) -> None:
    with world.database.write() as writer:
        machines = AddressRange(first="192.168.7.20", last="192.168.7.30")
        writer.insert(Network(name="second", cidr="192.168.7.0/24", machines=machines))
    result = world.try_register(world.report(), source)
    assert getattr(result, "resource").address == expected  # noqa: B009  # a refusal would have none


def test_without_a_management_network_the_machine_keeps_the_address_it_spoke_from(world: World) -> None:
    with world.database.write() as writer:
        writer.delete(Network, writer.find(Network)[0].id)
    taken = world.register()
    assert taken.resource.address == "10.99.0.201"
    assert taken.place is not None
    assert taken.place.row is None
