"""By which names servers know machines."""

from __future__ import annotations

import pytest

from openqrm.domain.resource import Resource
from openqrm.operations.storage_rights import known_as

MACHINE = Resource(name="node-1", mac="52:54:00:aa:bb:01", address="10.0.0.2")


@pytest.mark.parametrize(
    "client",
    [
        "10.0.0.2",
        "52:54:00:aa:bb:01",
        "52:54:00:AA:BB:01",
        "525400aabb01",
        "52-54-00-aa-bb-01",
        "iqn.2026-01.org.example:client-525400aabb01",
        "node-1",
    ],
)
def test_names_of_a_machine(client: str) -> None:
    assert known_as(client, MACHINE)


@pytest.mark.parametrize(
    "client",
    [
        "10.0.0.20",
        "110.0.0.2",
        "10.0.0.2.example.org",
        "*",
        "",
        "52:54:00:aa:bb:02",
        "node-10",
        "my-node-1",
        "10.0.0.0/24",
    ],
)
def test_names_of_others(client: str) -> None:
    assert not known_as(client, MACHINE)


def test_a_machine_without_addresses_is_known_by_its_name_only() -> None:
    nameless = Resource(name="box")
    assert known_as("box", nameless)
    assert not known_as("10.0.0.2", nameless)
    assert not known_as("", nameless)
