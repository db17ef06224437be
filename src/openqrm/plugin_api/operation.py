"""How an operation is declared: once, with nothing tied to REST, CLI or a web page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict

from openqrm.domain.user import Actor, UserRole, at_least

if TYPE_CHECKING:
    from openqrm.domain.appliance import Appliance
    from openqrm.domain.model import Record
    from openqrm.domain.resource import Resource
    from openqrm.domain.storage import Storage
    from openqrm.plugin_api.drivers import ExportDriver, PoolDriver, StorageContext
    from openqrm.plugin_api.facts import Fact, Facts
    from openqrm.plugin_api.hooks import BootChange
    from openqrm.plugin_api.records import Reader
    from openqrm.plugin_api.steps import Plan, Steps

Permission = Callable[[Actor, str, "Record | None"], bool]
"""Decided on (actor, operation name, target)."""


def needs(role: UserRole) -> Permission:
    """A permission that a role and all above it have."""

    def decide(actor: Actor, operation: str, target: Record | None) -> bool:
        del operation, target
        return at_least(actor.role, role)

    return decide


class Arguments(BaseModel):
    """Base of an operation's arguments. Fields carry `Attr` like an entity's."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Hooks(Protocol):
    """What started plug-ins add to a plan. Step names come back prefixed with the plug-in's name."""

    def appliance(self, moment: str, appliance: Appliance, resource: Resource | None) -> Steps:
        """Moments: add, remove, start, started, stop, stopped."""

    def resource(self, moment: str, resource: Resource) -> Steps:
        """Moments: add, remove."""

    def kernel(self, moment: str, kernel: Record) -> Steps:
        """Moments: add, remove."""

    def assign(self, resource: Resource, appliance: Appliance) -> Sequence[BootChange]:
        """Changes of the machine's boot script."""


class Drivers(Protocol):
    """Pools and exports by storage, found through the declarations of enabled plug-ins."""

    def pool(self, storage: Storage) -> PoolDriver:
        """UnsupportedError when the type is not enabled."""

    def export(self, storage: Storage) -> ExportDriver:
        """UnsupportedError when the type is not enabled."""

    def context(self, storage: Storage, reader: Reader) -> StorageContext:
        """The storage with its validated settings and host."""

    def require(self, storage: Storage, capability: str) -> None:
        """UnsupportedError unless the storage's type declares the capability."""


@dataclass(frozen=True)
class PlanContext:
    """Everything a planner may look at. Nothing in it acts."""

    operation_id: int
    actor: Actor
    target: Record | None
    arguments: Any
    read: Reader
    facts: Facts
    hooks: Hooks
    drivers: Drivers
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The installation's addresses and directories, and the plug-in's own settings."""


FactsOf = Callable[[PlanContext], "Sequence[Fact[Any]]"]
Planner = Callable[[PlanContext], "Plan"]


SHARED = "shared:"
"""What the name of a target begins with that the operation shares with others which do too."""


def shared(target: str) -> str:
    """A target that is only read: others that share it need not wait, those that do not share it exclude us."""
    return SHARED + target


@dataclass(frozen=True)
class Phase:
    """One planning: which facts, then which steps. `plan` and `facts` are `module:function`, imported when used."""

    name: str
    plan: str
    facts: str | None = None


@dataclass(frozen=True)
class Operation:
    """A named, typed verb. `name` is `entity.verb`, for example `appliance.start`.

    `act` is for changes of our database alone: `module:function`, called as `(Writer, Call) -> Record | None` in one
    transaction and answered at once. `phases` is for everything that touches the datacentre. An operation has one of
    the two. `admit` (`module:function`, `(Reader, Call) -> Plan` of `Change` steps only) is executed in the
    transaction that enqueues the operation: a conflict there is the caller's answer and leaves no trace.

    `allowed` maps a field of the target to the states in which the operation makes sense. `targets`
    (`module:function`, `(Reader, Call) -> tuple[str, ...]`) names further things the operation excludes others
    from, as `entity-id`; its own target always is one. Operations that name a target as `shared(...)` exclude each
    other from it as little as readers do, and everybody else.
    """

    name: str
    title: str
    summary: str
    target: type[Record] | None = None
    arguments: type[BaseModel] = Arguments
    permission: Permission = needs(UserRole.OPERATOR)
    allowed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    destroys: bool = False
    """Whoever calls it by hand is asked first."""
    destroys_when: Mapping[str, bool] = field(default_factory=dict)
    """It destroys only if these arguments (which are false when left out) have these values; empty: always."""
    destroys_given: tuple[str, ...] = ()
    """It destroys only if one of these arguments is given and says something: not null, empty or -1, which all clear
    what is there; empty: always."""
    creates: type[Record] | None = None
    act: str | None = None
    admit: str | None = None
    phases: tuple[Phase, ...] = ()
    targets: str | None = None
    waits: bool = False
    """Whether the caller may ask to wait for a conflict in `admit` to go away instead of being refused."""
    forward_only: bool = False
    """Its steps are never undone (a stop, a removal): after three failures it waits for a human, then goes on."""
    reports: bool = False
    """Its step `report` has `findings`: the command line shows them, and can ask for all targets there are."""
    internal: bool = False
    """Called by the controller only; on no surface."""

    def __post_init__(self) -> None:
        if "." not in self.name:
            raise ValueError(f"operation {self.name!r} is not named entity.verb")
        if bool(self.act) == bool(self.phases):
            raise ValueError(f"operation {self.name} needs either act or phases")

    @property
    def kind(self) -> str:
        """The entity's name."""
        return self.name.split(".", 1)[0]

    @property
    def verb(self) -> str:
        """What it does."""
        return self.name.split(".", 1)[1]


@dataclass(frozen=True)
class Call:
    """One validated call of an operation, as `act`, `admit` and `targets` see it."""

    operation: str
    actor: Actor
    target: Record | None
    arguments: Any
    operation_id: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
