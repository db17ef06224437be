"""All operations and entities of this installation by name: the core's own and those of the installed plug-ins."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from openqrm.domain.errors import NotFoundError
from openqrm.engine.plugins.declarations import merge
from openqrm.engine.plugins.entities import all_entities, owners_of
from openqrm.plugin_api.loading import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from openqrm.domain.model import Record
    from openqrm.plugin_api.operation import Operation
    from openqrm.plugin_api.plugin import Plugin

CORE_OPERATIONS: tuple[str, ...] = (
    "openqrm.operations.core_resource:OPERATIONS",
    "openqrm.operations.kernel:OPERATIONS",
    "openqrm.operations.volume:OPERATIONS",
    "openqrm.operations.volume_resize:OPERATIONS",
    "openqrm.operations.volume_release:OPERATIONS",
    "openqrm.operations.storage_scan:OPERATIONS",
    "openqrm.operations.storage_check:OPERATIONS",
    "openqrm.operations.storage_audit:OPERATIONS",
    "openqrm.operations.core_storage:OPERATIONS",
    "openqrm.operations.image:OPERATIONS",
    "openqrm.operations.core_image:OPERATIONS",
    "openqrm.operations.image_move:OPERATIONS",
    "openqrm.operations.appliance:OPERATIONS",
    "openqrm.operations.disks:OPERATIONS",
    "openqrm.operations.core_network:OPERATIONS",
    "openqrm.operations.core_nic:OPERATIONS",
    "openqrm.operations.core_address:OPERATIONS",
    "openqrm.operations.core_plugins:OPERATIONS",
    "openqrm.operations.core_user:OPERATIONS",
    "openqrm.operations.core_token:OPERATIONS",
    "openqrm.operations.core_event:OPERATIONS",
    "openqrm.operations.core_operation:OPERATIONS",
)
"""The core's own operations: each module lists its declarations in a tuple."""

CREATING_VERBS = ("create", "add", "allocate")
"""Without a target these make a new record: `POST /v1/{plural}` and `openqrm ENTITY create`."""

_NAME = re.compile(r"^[a-z][a-z0-9-]*\.[a-z][a-z0-9-]*$")
_REFERENCE = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


@dataclass(frozen=True)
class Registry:
    """`owners` and `entity_owners` name the plug-in of what is not the core's; it must be enabled for a call.

    `known` lists what is installed by the name that an `Attr` has for it: `storage-types`.
    """

    operations: Mapping[str, Operation]
    entities: Mapping[str, type[Record]]
    owners: Mapping[str, str] = field(default_factory=dict)
    entity_owners: Mapping[str, str] = field(default_factory=dict)
    known: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        core: Iterable[Sequence[Operation]],
        plugins: Iterable[Plugin] = (),
        entities: Mapping[str, type[Record]] | None = None,
    ) -> Self:
        """Collect and check all declarations; ValueError for a duplicate or one that contradicts itself."""
        plugins = tuple(plugins)
        operations: dict[str, Operation] = {}
        owners: dict[str, str] = {}
        for owner, group in [*(("", group) for group in core), *((each.name, each.operations) for each in plugins)]:
            for operation in group:
                if operation.name in operations:
                    raise ValueError(f"operation {operation.name} is declared twice (by {owner or 'the core'} too)")
                check(operation)
                operations[operation.name] = operation
                if owner:
                    owners[operation.name] = owner
        records = all_entities(plugins) if entities is None else dict(entities)
        joined, _ = merge((plugin.name, plugin) for plugin in plugins)
        return cls(
            MappingProxyType(operations),
            MappingProxyType(records),
            MappingProxyType(owners),
            MappingProxyType(owners_of(plugins)),
            MappingProxyType({"storage-types": tuple(sorted(joined.types))}),
        )

    @classmethod
    def of_installation(cls, plugins: Iterable[Plugin] = (), further: Iterable[Sequence[Operation]] = ()) -> Self:
        """The core's operations, `further` ones and those of the plug-ins."""
        return cls.build([*(load(reference) for reference in CORE_OPERATIONS), *further], plugins)

    def operation(self, name: str) -> Operation:
        """The declaration; NotFoundError."""
        found = self.operations.get(name)
        if found is None:
            raise NotFoundError(f"there is no operation {name}", remedy="see `openqrm --help` for those there are")
        return found

    def entity(self, name: str) -> type[Record]:
        """The record class of an entity; NotFoundError."""
        found = self.entities.get(name)
        if found is None:
            raise NotFoundError(f"there is no entity {name}")
        return found

    def offered(self) -> Iterator[Operation]:
        """What surfaces show: everything that is not internal, in declaration order."""
        return (operation for operation in self.operations.values() if not operation.internal)

    def plural(self, kind: str) -> str:
        """The collection's name in URLs; the kind itself when it is no entity."""
        return self.entities[kind].entity.plural if kind in self.entities else kind

    def references(self) -> dict[str, tuple[str, ...]]:
        """Every `module:function` the declarations name, by operation; a test loads them all."""
        return {name: references(operation) for name, operation in self.operations.items()}


def references(operation: Operation) -> tuple[str, ...]:
    """The code an operation names."""
    named = [operation.act, operation.admit, operation.targets]
    for phase in operation.phases:
        named += [phase.plan, phase.facts]
    return tuple(reference for reference in named if reference)


def check(operation: Operation) -> None:
    """Refuse a declaration that contradicts itself; ValueError."""
    if not _NAME.match(operation.name):
        raise ValueError(f"operation {operation.name!r} is not named entity.verb in lower case")
    for reference in references(operation):
        if not _REFERENCE.match(reference):
            raise ValueError(f"{operation.name}: {reference!r} is not written module:function")
    if (operation.admit or operation.targets or operation.waits) and not operation.phases:
        raise ValueError(f"{operation.name}: admit, targets and waits belong to operations with phases")
    if operation.waits and not operation.admit:
        raise ValueError(f"{operation.name}: waits without admit has nothing to wait for")
    _check_destroys(operation)
    names = [phase.name for phase in operation.phases]
    if len(names) != len(set(names)):
        raise ValueError(f"{operation.name}: two phases have one name")
    _check_allowed(operation)


def _check_destroys(operation: Operation) -> None:
    if (operation.destroys_when or operation.destroys_given) and not operation.destroys:
        raise ValueError(f"{operation.name}: destroys_when and destroys_given belong to operations that destroy")
    for name in operation.destroys_when:
        known = operation.arguments.model_fields.get(name)
        if known is None or known.default is not False:
            raise ValueError(
                f"{operation.name}: destroys_when {name}, which is no argument that is false when left out"
            )
    for name in operation.destroys_given:
        known = operation.arguments.model_fields.get(name)
        if known is None or known.is_required() or known.default not in (None, ""):
            raise ValueError(f"{operation.name}: destroys_given {name}, which is no argument that can be left out")


def _check_allowed(operation: Operation) -> None:
    if operation.allowed and operation.target is None:
        raise ValueError(f"{operation.name}: allowed states without a target")
    for name, states in operation.allowed.items():
        assert operation.target is not None  # noqa: S101  # narrowed by the check above
        table = operation.target.entity.states.get(name)
        if table is None:
            raise ValueError(f"{operation.name}: {operation.target.entity.name} has no state field {name}")
        unknown = sorted(set(states) - {str(state) for state in table.states})
        if unknown:
            raise ValueError(f"{operation.name}: {table.name} knows no {', '.join(unknown)}")
