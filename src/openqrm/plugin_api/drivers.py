"""What a storage driver implements. Drivers are pure: they look at facts and return steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openqrm.domain.storage import Storage, Volume
    from openqrm.plugin_api.facts import Fact, Facts
    from openqrm.plugin_api.steps import Steps


class Cap(StrEnum):
    """What a pool or an export declares; what is not declared refuses with UnsupportedError.

    Pools: CLONE copies a volume, CLONE_COW in an instant, sharing what is not changed; FILL unpacks an archive into
    one; LIST finds the volumes there are. Exports: AUTHORIZE grants access to exactly one client; REVOKE_PROOF means
    that once `revoke` has ended, nothing the client had in flight or sends later reaches the volume, also after a
    restart of the storage or of the link (the counter test); SHARED means that any machine on the network can be
    granted access, so that an image may start elsewhere.
    """

    CLONE = "clone"
    CLONE_COW = "clone-cow"
    FILL = "fill"
    SNAPSHOT = "snapshot"
    RESIZE = "resize"
    LIST = "list"
    AUTHORIZE = "authorize"
    REVOKE_PROOF = "revoke-proof"
    SHARED = "shared"


class Medium(StrEnum):
    """What a pool makes and an export takes: a tree of files or a block device."""

    TREE = "tree"
    BLOCK = "block"


class NoSettings(BaseModel):
    """A pool or export without settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@runtime_checkable
class Placed(Protocol):
    """A pool's settings that say where on the host its volumes are. Those of pools that do not share a host may not.

    No two storages may keep their volumes in one place: the same image would run on two machines at once.
    """

    @property
    def place(self) -> str:
        """A directory, volume group or dataset, with `/` between what contains and what is contained."""


@dataclass(frozen=True)
class Pool:
    """Makes and keeps volumes. `driver` is `module:Class`, imported only when used."""

    name: str
    medium: Medium
    capabilities: frozenset[Cap]
    driver: str
    spec: type[BaseModel] = NoSettings


@dataclass(frozen=True)
class Export:
    """Hands volumes to machines."""

    name: str
    medium: Medium
    deployment: str
    capabilities: frozenset[Cap]
    driver: str
    spec: type[BaseModel] = NoSettings


@dataclass(frozen=True)
class StorageType:
    """A pool joined with an export under the name operators know."""

    name: str
    title: str
    pool: str
    export: str


@dataclass(frozen=True)
class Client:
    """The one machine a volume is handed to."""

    resource_id: int
    address: str
    mac: str
    name: str


@dataclass(frozen=True)
class StorageContext:
    """A storage as its drivers see it: the host's resource id, its address and the validated settings."""

    storage: Storage
    host: int
    address: str
    pool: BaseModel
    export: BaseModel
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class VolumeEntry:
    """A volume as found on the host."""

    name: str
    size_mb: int
    root_device: str


@dataclass(frozen=True)
class Grant:
    """An access as found on the host: which volume, which client, at which generation."""

    volume: str
    client: str
    generation: int


class PoolDriver(Protocol):
    """Facts are asked first; then each verb returns its steps.

    Steps that change a volume are gated (`Gate(volume="volume-ID", generation=volume.generation)`), idempotent, leave
    the whole or nothing, and have an undo that touches only what they made. No two steps of one verb share a name.
    """

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        """What must be known to plan: free space, capabilities of the host, existing volumes."""

    def entries(self, context: StorageContext, facts: Facts) -> Sequence[VolumeEntry]:
        """The volumes there are."""

    def create(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """Make an empty volume."""

    def remove(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """Destroy a volume and its data; nothing happens when it is gone already."""

    def clone(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """Make `volume` a 1:1 copy of `source`, copy-on-write where the host can."""

    def fill(self, context: StorageContext, volume: Volume, archive: str, facts: Facts) -> Steps:
        """Unpack a tar archive (plain or gzip, a file on the host) into a new volume; owners, links, xattrs kept."""

    def location(self, context: StorageContext, volume: Volume) -> str:
        """Where the volume is on the host: a directory or a device."""


class ExportDriver(Protocol):
    """Hands a pool's location to exactly one machine, and takes it back.

    Steps are gated under the same key as the volume's, with the lease's generation.
    """

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        """What must be known to plan: which server software the host has, present grants."""

    def grants(self, context: StorageContext, facts: Facts) -> Sequence[Grant]:
        """The accesses there are."""

    def authorize(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        """Grant access to one client, taking it from any other. Their undo revokes it."""

    def revoke(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        """Take access back and show that it is gone: the last step fails unless the host shows so."""

    def root_device(self, context: StorageContext, volume: Volume, location: str) -> str:
        """The root device identifier."""

    def attach(self, context: StorageContext, volume: Volume, location: str) -> Mapping[str, str]:
        """`ROOT_*` assignments for the root-mount hook, without secrets."""


@runtime_checkable
class Confirming(Protocol):
    """A pool or export some of whose declared capabilities depend on what the host has."""

    def confirms(self, capability: Cap, context: StorageContext, facts: Facts) -> bool:
        """Whether the host, as the driver's facts show it, has a capability that is declared."""


def confirmed(driver: PoolDriver | ExportDriver, capability: Cap, context: StorageContext, facts: Facts) -> bool:
    """Whether a declared capability is there on this very host; true for drivers that depend on nothing.

    `facts` hold what the driver asked for.
    """
    return driver.confirms(capability, context, facts) if isinstance(driver, Confirming) else True
