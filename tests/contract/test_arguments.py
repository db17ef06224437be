"""What an entity declares as a caller's can be said: an operation takes it, and what may change can be changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import pytest

from openqrm.domain.model import Attr, attributes
from openqrm.domain.storage import Image, Volume
from openqrm.engine.plugins.catalogue import discover
from openqrm.operations.arguments import creating, updating
from openqrm.operations.registry import Registry
from openqrm.plugin_api.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openqrm.domain.model import Record

OURS = "the controller alone writes it"
EXEMPT = {
    **dict.fromkeys(
        (
            "boot-ticket",
            "controller",
            "counter",
            "ended-session",
            "event",
            "lease",
            "loan",
            "machine-order",
            "machine-token",
            "operation",
            "operation-target",
            "step",
        ),
        OURS,
    ),
    "nic.boot": "which card a machine boots from is its report's",
    "plugin.name": "a plug-in is installed, not made",
    "resource.manual": "what is made by hand is",
    "resource.type": "said when it is made by hand; a machine's report changes it",
    "image.root_fs": "said when the image is made: the volume's file system does not change",
    "token": "made of a name and a number of days, answered with the key itself, and never changed",
}
"""Entities and fields (`entity.field`) that no operation sets, or changes, and why."""
NEVER_CHANGED = {
    "address": "it is allocated and released",
    "nic": "it is added and removed by hand; the machine's report changes it",
}
"""Entities whose fields all count as immutable, and why."""


def unsettable(record: type[Record], operations: Iterable[Operation]) -> list[str]:
    """Fields that are a caller's by their declaration, while no operation takes them.

    What is mutable has to be taken by one that changes a record. (One that takes an immutable field of what it is
    called on makes a new record: `volume.clone`.)
    """
    entity = record.entity.name
    attrs = {name: attr for name, attr in attributes(record).items() if not attr.derived}
    immutable = {name for name, attr in attrs.items() if attr.immutable or entity in NEVER_CHANGED}
    making: set[str] = set()
    changing: set[str] = set()
    for operation in operations:
        taken = set(operation.arguments.model_fields)
        if operation.creates is not None and operation.creates.entity.name == entity:
            making |= taken
        elif operation.target is not None and operation.target.entity.name == entity:
            (making if taken & immutable else changing).update(taken)
    takers = {name: making | changing if name in immutable else changing for name in attrs}
    return [f"{entity}.{name}" for name, taken in takers.items() if name not in taken]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.of_installation(discover().plugins)


def test_every_field_of_every_entity_can_be_set_by_an_operation(registry: Registry) -> None:
    operations = tuple(registry.offered())
    found = {field for record in registry.entities.values() for field in unsettable(record, operations)}
    missing = {field for field in found if field not in EXEMPT and field.partition(".")[0] not in EXEMPT}
    assert not missing, "take them from `creating(…)` and `updating(…)`, or declare them `derived`"


def test_nothing_is_exempt_that_need_not_be(registry: Registry) -> None:
    operations = tuple(registry.offered())
    found = {field for record in registry.entities.values() for field in unsettable(record, operations)}
    entities = {field.partition(".")[0] for field in found}
    assert all(EXEMPT.values())
    assert not [name for name in EXEMPT if name not in found | entities]


class _Described(Volume):
    """A volume with a field that only the entity has."""

    unheard_of: Annotated[str, Attr("Unheard of")] = ""
    unheard_of_for_good: Annotated[str, Attr("For good", immutable=True)] = ""
    unheard_of_by_callers: Annotated[int, Attr("Ours", derived=True)] = 0


class _Illustrated(Image):
    """An image with one: its operations' arguments are written by hand."""

    unheard_of: Annotated[str, Attr("Unheard of")] = ""


@pytest.mark.parametrize(
    ("record", "found"),
    [(_Described, ["volume.unheard_of", "volume.unheard_of_for_good"]), (_Illustrated, ["image.unheard_of"])],
)
def test_a_field_that_only_the_entity_has_is_found(registry: Registry, record: type[Record], found: list[str]) -> None:
    wrong = [field for field in unsettable(record, tuple(registry.offered())) if field not in EXEMPT]
    assert wrong == found


def test_what_is_taken_by_creation_alone_cannot_be_changed() -> None:
    made = Operation(
        name="volume.create",
        title="",
        summary="",
        creates=_Described,
        arguments=creating(_Described),
        act="a.b:c",
    )
    changed = Operation(
        name="volume.update",
        title="",
        summary="",
        target=_Described,
        arguments=updating(_Described),
        act="a.b:c",
    )
    assert {"volume.size_mb", "volume.unheard_of"} < set(unsettable(_Described, [made]))
    assert "volume.unheard_of_for_good" not in unsettable(_Described, [made])
    assert unsettable(_Described, [made, changed]) == []
