"""Declarations are collected once, refused when they contradict themselves, and every reference loads."""

from __future__ import annotations

from typing import Annotated

import pytest

from openqrm.domain.appliance import Appliance
from openqrm.domain.errors import NotFoundError
from openqrm.domain.model import Attr
from openqrm.engine.plugins.catalogue import discover
from openqrm.operations.arguments import argument_attributes
from openqrm.operations.registry import Registry
from openqrm.plugin_api.loading import load
from openqrm.plugin_api.operation import Arguments, Operation, Phase
from openqrm.plugin_api.plugin import Family, Plugin


class Toys(Arguments):
    """One that is needed, one that may be left out, and a switch."""

    needed: Annotated[str, Attr("Needed")]
    names: Annotated[str | None, Attr("Names")] = None
    loud: Annotated[bool, Attr("Loud")] = False


def declared(name: str = "thing.poke", **further: object) -> Operation:
    fields: dict[str, object] = {"title": "Poke", "summary": "Poke it", "act": "a.b:c"} | further
    return Operation(name=name, **fields)  # type: ignore[arg-type]  # tests vary the fields


def plugin(*operations: Operation) -> Plugin:
    return Plugin("toy", Family.OTHER, "Toy", "A toy", "toy", operations=operations)


def test_every_reference_of_every_operation_loads() -> None:
    registry = Registry.of_installation(discover().plugins)
    wrong = [
        f"{name}: {reference}"
        for name, references in registry.references().items()
        for reference in references
        if not callable(load(reference))
    ]
    assert not wrong
    assert len(registry.operations) > 40


def test_every_argument_says_what_it_is() -> None:
    registry = Registry.of_installation(discover().plugins)
    nameless = [
        f"{operation.name}.{name}"
        for operation in registry.operations.values()
        for name, info in operation.arguments.model_fields.items()
        if argument_attributes(operation.arguments)[name] not in info.metadata
    ]
    assert not nameless
    assert all(operation.summary and operation.title for operation in registry.operations.values())


def test_references_name_entities() -> None:
    registry = Registry.of_installation()
    for operation in registry.operations.values():
        for attr in argument_attributes(operation.arguments).values():
            assert attr.ref is None or attr.ref in registry.entities


def test_an_operation_of_a_plugin_is_there_without_another_line() -> None:
    registry = Registry.build([], [plugin(declared())])
    assert registry.operation("thing.poke").title == "Poke"
    assert registry.owners == {"thing.poke": "toy"}


def test_a_name_is_declared_once() -> None:
    with pytest.raises(ValueError, match="declared twice"):
        Registry.build([(declared(),)], [plugin(declared())])


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "Thing.poke"},
        {"act": "nothing"},
        {"admit": "a.b:c"},
        {"allowed": {"phase": frozenset({"stopped"})}},
        {"target": Appliance, "allowed": {"colour": frozenset({"red"})}},
        {"target": Appliance, "allowed": {"phase": frozenset({"flying"})}},
        {"act": None, "phases": (Phase("a", "m:f"), Phase("a", "m:g"))},
        {"act": None, "phases": (Phase("a", "m:f"),), "waits": True},
        {"arguments": Toys, "destroys_given": ("names",)},
        {"arguments": Toys, "destroys": True, "destroys_given": ("toys",)},
        {"arguments": Toys, "destroys": True, "destroys_given": ("needed",)},
        {"arguments": Toys, "destroys": True, "destroys_given": ("loud",)},
        {"arguments": Toys, "destroys": True, "destroys_when": {"names": True}},
    ],
)
def test_contradictions_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"thing|Thing"):
        Registry.build([(declared(**{"name": "thing.poke", **fields}),)])  # type: ignore[arg-type]  # tests vary them


def test_unknown_names_are_not_found() -> None:
    registry = Registry.of_installation()
    with pytest.raises(NotFoundError):
        registry.operation("appliance.fly")
    with pytest.raises(NotFoundError):
        registry.entity("unicorn")
