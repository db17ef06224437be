"""The pure parts of dhcpd: configuration, lease file, hook, router advertisement."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from openqrm.domain.errors import InvalidError
from openqrm.domain.network import Address, AddressRange, Network, Nic
from openqrm.domain.resource import Resource
from openqrm.plugin_api.hooks import HookContext
from openqrm.plugins.network.dhcpd import advertise, configuration, hooks, leases
from openqrm.testing.memory import MemoryDatabase

INSTALLATION = {"address": "192.0.2.1", "boot_url": "http://192.0.2.1:8080", "state_dir": "/state"}
LAB = Network(
    id=4,
    name="lab",
    cidr="192.0.2.0/24",
    interface="eth0",
    machines=AddressRange(first="192.0.2.10", last="192.0.2.12"),
    discovery=AddressRange(first="192.0.2.200", last="192.0.2.201"),
)


def made(*networks: Network) -> dict[str, Any]:
    config = configuration.configuration(networks, Path("/d"), {"discovery_seconds": 120}, INSTALLATION, "/hook.so")
    body: dict[str, Any] = config["Dhcp4"]
    return body


def test_only_networks_with_an_interface_and_a_range_are_served() -> None:
    without_interface = LAB.model_copy(update={"interface": "", "name": "a"})
    without_range = LAB.model_copy(update={"machines": None, "discovery": None, "name": "b"})
    config = made(without_interface, without_range, LAB)
    assert [one["name"] for one in config["shared-networks"]] == ["lab"]
    assert config["interfaces-config"]["interfaces"] == ["eth0"]
    assert made()["interfaces-config"]["interfaces"] == []


def test_discovery_is_lent_and_machines_keep_theirs_in_a_subnet_of_the_same_prefix() -> None:
    discovery, machines = made(LAB)["shared-networks"][0]["subnet4"]
    assert (discovery["subnet"], discovery["valid-lifetime"]) == ("192.0.2.0/24", 120)
    assert (machines["subnet"], machines["valid-lifetime"]) == ("192.0.2.1/24", 0xFFFFFFFF)
    assert discovery["pools"] == [{"pool": "192.0.2.200 - 192.0.2.201"}]
    assert machines["pools"] == [{"pool": "192.0.2.10 - 192.0.2.12"}]
    assert len({discovery["id"], machines["id"]}) == 2


def test_subnet_ids_of_all_networks_differ() -> None:
    ids = [
        make(number)
        for number in range(1, 50)
        for make in (configuration.discovery_subnet, configuration.machines_subnet)
    ]
    assert len(set(ids)) == len(ids)
    assert min(ids) > 0


def test_a_range_too_large_for_memory_is_refused() -> None:
    with pytest.raises(InvalidError, match="at most"):
        configuration.addresses(AddressRange(first="10.0.0.0", last="10.255.255.255"))
    assert configuration.addresses(None) == []
    assert configuration.addresses(LAB.machines) == ["192.0.2.10", "192.0.2.11", "192.0.2.12"]


def test_no_network_card_has_a_placeholder_s_address() -> None:
    mac = configuration.placeholder("192.0.2.10")
    assert mac == "ff:00:c0:00:02:0a"
    assert int(mac[:2], 16) & 1, "a multicast address"


def rows(text: str) -> dict[str, str]:
    return {row["address"]: row["hwaddr"] for row in leases.living([text], 0)}


def test_the_lease_file_has_machines_placeholders_and_what_discovery_lent() -> None:
    known = {(4, "192.0.2.11"): leases.Host(4, "192.0.2.11", "52:54:00:00:00:01")}
    kept = [
        {
            "address": "192.0.2.200",
            "hwaddr": "52:54:00:00:00:02",
            "subnet_id": "9",
            "valid_lifetime": "60",
            "expire": "99",
        },
        {
            "address": "192.0.2.201",
            "hwaddr": "52:54:00:00:00:01",
            "subnet_id": "9",
            "valid_lifetime": "60",
            "expire": "99",
        },
        {
            "address": "192.0.2.12",
            "hwaddr": "52:54:00:00:00:03",
            "subnet_id": "10",
            "valid_lifetime": "60",
            "expire": "99",
        },
        {
            "address": "203.0.113.9",
            "hwaddr": "52:54:00:00:00:04",
            "subnet_id": "7",
            "valid_lifetime": "60",
            "expire": "99",
        },
    ]
    text = leases.lease_file([LAB], known, kept, 10)
    assert rows(text) == {
        "192.0.2.200": "52:54:00:00:00:02",
        "192.0.2.10": "ff:00:c0:00:02:0a",
        "192.0.2.11": "52:54:00:00:00:01",
        "192.0.2.12": "ff:00:c0:00:02:0c",
    }


def test_of_old_lease_files_the_last_word_counts_and_what_is_over_is_over() -> None:
    head = ",".join(leases.COLUMNS)
    older = f"{head}\n192.0.2.1,a,,60,100,1,0,0,,0,\n192.0.2.2,b,,60,100,1,0,0,,0,\n192.0.2.3,c,,60,100,1,0,0,,0,\n"
    newer = f"{head}\n192.0.2.2,b,,0,100,1,0,0,,0,\n192.0.2.3,d,,60,200,1,0,0,,0,\nhalf a line"
    assert [(row["address"], row["hwaddr"]) for row in leases.living([older, "", newer], 50)] == [
        ("192.0.2.1", "a"),
        ("192.0.2.3", "d"),
    ]
    assert [row["address"] for row in leases.living([older, newer], 150)] == ["192.0.2.3"]


@pytest.fixture
def database() -> MemoryDatabase:
    found = MemoryDatabase()
    with found.write() as writer:
        network = writer.insert(LAB.model_copy(update={"id": -1}))
        away = writer.insert(Network(name="away", cidr="198.51.100.0/24", machines=None))
        node = writer.insert(Resource(name="node", mac="52:54:00:00:00:01"))
        nic = writer.insert(Nic(resource_id=node.id, mac="52:54:00:00:00:01"))
        second = writer.insert(Nic(resource_id=node.id, mac="52:54:00:00:00:02"))
        writer.insert(Address(network_id=network.id, address="192.0.2.11", nic_id=nic.id))
        writer.insert(Address(network_id=network.id, address="192.0.2.99", nic_id=second.id))  # not in the range
        writer.insert(Address(network_id=away.id, address="198.51.100.5", nic_id=second.id))  # not served
        writer.insert(Resource(name="box", mac="52:54:00:00:00:09", address="192.0.2.12", manual=True))
        writer.insert(Resource(name="far", mac="52:54:00:00:00:0a", address="192.0.2.13", manual=True))
    return found


def steps(database: MemoryDatabase, moment: str, name: str) -> list[Any]:
    with database.read() as reader:
        resource = reader.find(Resource, name=name)[0]
        return list(hooks.resource(HookContext(reader, {}, INSTALLATION), moment, resource))


def test_the_hook_plans_one_step_for_each_address_that_dhcp_serves(database: MemoryDatabase) -> None:
    (step,) = steps(database, "add", "node")
    assert step.arguments == {"network_id": 1, "address": "192.0.2.11", "mac": "52:54:00:00:00:01"}
    assert (step.name, step.function, step.verify, step.undo) == (
        "lease-add-1",
        "openqrm.plugins.network.dhcpd.leases:add",
        "openqrm.plugins.network.dhcpd.leases:is_added",
        "openqrm.plugins.network.dhcpd.leases:remove",
    )
    (step,) = steps(database, "remove", "node")
    assert (step.name, step.function, step.undo) == (
        "lease-remove-1",
        "openqrm.plugins.network.dhcpd.leases:remove",
        "openqrm.plugins.network.dhcpd.leases:add",
    )
    assert step.undo_arguments == step.arguments


def test_a_closed_box_has_a_step_where_its_address_is_in_a_range(database: MemoryDatabase) -> None:
    assert [step.arguments["address"] for step in steps(database, "add", "box")] == ["192.0.2.12"]
    assert steps(database, "add", "far") == []
    assert steps(database, "polish", "node") == []


def test_all_hosts_are_those_the_hook_would_add(database: MemoryDatabase) -> None:
    with database.read() as reader:
        found = leases.hosts(reader)
    assert found[1, "192.0.2.11"].mac == "52:54:00:00:00:01"
    assert found[1, "192.0.2.12"].mac == "52:54:00:00:00:09"
    assert (1, "192.0.2.13") not in found


ASKER, OURS = bytes.fromhex("525400000001"), bytes.fromhex("525400ff0000")


def solicitation(source: str = "fe80::1", hops: int = 255, kind: int = 133, header: int = 58) -> bytes:
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, "ff02::2")
    packet = struct.pack("!IHBB", 6 << 28, 8, header, hops) + addresses + struct.pack("!BBHI", kind, 0, 0, 0)
    return bytes.fromhex("333300000002") + ASKER + b"\x86\xdd" + packet


@pytest.mark.parametrize(("source", "target"), [("fe80::1", "fe80::1"), ("::", "ff02::1")])
def test_a_solicitation_is_answered_to_the_asker_alone_with_no_router(source: str, target: str) -> None:
    frame = advertise.answer(solicitation(source), OURS)
    assert frame is not None
    assert frame[:14] == ASKER + OURS + b"\x86\xdd"
    assert frame[21] == 255
    assert frame[38:54] == socket.inet_pton(socket.AF_INET6, target)
    kind, code, _, hops, flags, lifetime = struct.unpack("!BBHBBH", frame[54:62])
    assert (kind, code, hops, flags, lifetime) == (134, 0, 0, 0, 0)
    pseudo = frame[22:54] + struct.pack("!IHBB", 16, 0, 0, 58)
    assert advertise.checksum(pseudo + frame[54:]) == 0


def test_the_answer_s_source_is_not_the_address_of_a_router_on_this_server() -> None:
    eui64 = socket.inet_pton(socket.AF_INET6, "fe80::5054:ff:feff:0")
    assert advertise.link_local(OURS) != eui64
    assert advertise.link_local(OURS)[:8] == eui64[:8]


@pytest.mark.parametrize(
    "frame",
    [b"", b"\0" * 40, solicitation(hops=64), solicitation(kind=134), solicitation(header=17), solicitation()[:60]],
)
def test_anything_else_is_not_answered(frame: bytes) -> None:
    assert advertise.answer(frame, OURS) is None


def test_interfaces_follow_kea_s_configuration(tmp_path: Path) -> None:
    file = tmp_path / "conf"
    assert advertise.interfaces(file) == set()
    file.write_text('{"Dhcp4": {"interfaces-config": {"interfaces": ["eth0", "br0"]}}}')
    assert advertise.interfaces(file) == {"eth0", "br0"}
    file.write_text("half")
    assert advertise.interfaces(file) == set()
