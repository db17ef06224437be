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
    from openqrm.plugin_api.values import Secret


class Cap(StrEnum):
    """What a pool or an export declares; what is not declared refuses with UnsupportedError.

    Pools: CLONE copies a volume, CLONE_COW in an instant, sharing what is not changed; FILL unpacks an archive into
    one; SNAPSHOT makes a volume that holds only what differs from its source (driver: `Snapshots`); RESIZE grows one
    with its file system (`Resizes`); LIST finds the volumes there are. Exports: AUTHORIZE grants access to exactly one
    client; REVOKE_PROOF means that once `revoke` has ended, nothing the client had in flight or sends later reaches the
    volume, also after a restart of the storage or of the link (the counter test); SHARED means that any machine on the
    network can be granted access, so that an image may start elsewhere; LEND means that any number of machines can be
    let read a volume, as the source of transfers (`Lends`).
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
    LEND = "lend"


class Medium(StrEnum):
    """What a pool makes and an export takes: a tree of files, a block device, or a place in the machine itself."""

    TREE = "tree"
    BLOCK = "block"
    MACHINE = "machine"


class Start(StrEnum):
    """How a machine comes to run what an export hands to it.

    ROOT: the initramfs mounts it as the root file system. SAN: the boot loader attaches it as the machine's disk. DISK:
    the initramfs writes it to the machine's own disks, and takes it from there again when the appliance stops; the
    machine then boots from them. What boots by SAN or DISK need not have our agent.
    """

    ROOT = "root"
    SAN = "san"
    DISK = "disk"


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


@runtime_checkable
class Sized(Protocol):
    """A pool's settings that say how large a volume is that is made without a size."""

    @property
    def default_size_mb(self) -> int:
        """MB, more than 0."""


def sized(volume: Volume, pool: BaseModel) -> Volume:
    """A volume with the size that it gets in a pool of these settings. 0 stays where volumes have no size."""
    if volume.size_mb or not isinstance(pool, Sized):
        return volume
    return volume.model_copy(update={"size_mb": pool.default_size_mb})


@dataclass(frozen=True)
class Pool:
    """Makes and keeps volumes. `driver` is `module:Class`, imported only when used.

    A pool joins by itself with every export of its medium, under the name `PREFIX-EXPORT`; `prefix` is the pool's name
    unless it says otherwise. Two pools of one technology, one for each medium, may have one prefix.
    """

    name: str
    medium: Medium
    capabilities: frozenset[Cap]
    driver: str
    spec: type[BaseModel] = NoSettings
    prefix: str = ""


@dataclass(frozen=True)
class Export:
    """Hands volumes to machines.

    `secrets` names what is made anew for every grant and known to one machine only (a password, a key). `through`
    names another export that does the granting: this one only differs in how machines use what they get; it has that
    export's driver, settings, capabilities and secrets. `own_machine`: the volume is in the storage's own resource, so
    nothing else can run it. `in_memory`: it is the machine's memory, filled anew at each boot from another image.
    """

    name: str
    medium: Medium
    deployment: str
    capabilities: frozenset[Cap] = frozenset()
    driver: str = ""
    spec: type[BaseModel] = NoSettings
    secrets: tuple[str, ...] = ()
    start: Start = Start.ROOT
    through: str = ""
    own_machine: bool = False
    in_memory: bool = False


@dataclass(frozen=True)
class StorageType:
    """A pool joined with an export under the name operators know. Pairs without one are joined by themselves."""

    name: str
    title: str
    pool: str
    export: str


@dataclass(frozen=True)
class Client:
    """The one machine a volume is handed to. `secrets` are those the export declares, by name, as references."""

    resource_id: int
    address: str
    mac: str
    name: str
    memory_mb: int = 0
    secrets: Mapping[str, Secret] = field(default_factory=dict)


@dataclass(frozen=True)
class StorageContext:
    """A storage as its drivers see it: the host's resource id, its address and the validated settings."""

    storage: Storage
    host: int
    address: str
    pool: BaseModel
    export: BaseModel


@dataclass(frozen=True)
class VolumeEntry:
    """A volume as found on the host."""

    name: str
    size_mb: int
    root_device: str


@dataclass(frozen=True)
class Grant:
    """An access as the server software really gives it now, or will give it after its restart.

    `volume` is `volume-ID` and `generation` the lease's where the grant is ours; empty and -1 for one that somebody
    made by hand. `client` is what the server knows the client by. `location` is what is handed out. `writes` is false
    for what is lent.
    """

    volume: str
    client: str
    generation: int
    location: str = ""
    writes: bool = True


@dataclass(frozen=True)
class SanDisk:
    """A disk as iPXE's `sanboot` takes it. `secret` names one of the export's secrets, the password of `user`."""

    uri: str
    initiator: str = ""
    user: str = ""
    secret: str = ""


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
        """Unpack a tar archive (plain or gzip, a file on the host) into a new volume; owners, links, xattrs kept.

        A pool of block devices may take a disk image too (raw with a partition table, or qcow2): the disk as it is.
        """

    def location(self, context: StorageContext, volume: Volume) -> str:
        """Where the volume is on the host: a directory or a device."""

    def leftovers(self, context: StorageContext, facts: Facts) -> Sequence[str]:
        """What lies in the pool and is no volume: half-made copies, what was being removed. Paths or names."""


class Snapshots(Protocol):
    """A pool with Cap.SNAPSHOT."""

    def snapshot(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """Make `volume`, which holds only what differs from `source`; `volume.size_mb` is room for that, 0: enough."""


class Resizes(Protocol):
    """A pool with Cap.RESIZE."""

    def resize(self, context: StorageContext, volume: Volume, size_mb: int, facts: Facts) -> Steps:
        """Grow a volume that nobody uses, with the file system in it. InvalidError for a smaller size."""


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

    def withdraw(self, context: StorageContext, grant: Grant, facts: Facts) -> Steps:
        """Take back an access that no lease knows, as `grants` found it. Not gated: it belongs to no generation."""

    def root_device(self, context: StorageContext, volume: Volume, location: str) -> str:
        """The root device identifier."""

    def attach(self, context: StorageContext, volume: Volume, location: str, client: Client) -> Mapping[str, str]:
        """`ROOT_*` assignments for the root-mount hook, without secrets: those come as `ROOT_SECRET_NAME`."""


class Lends(Protocol):
    """An export with Cap.LEND: machines that may read a volume, beside or without one that may write it."""

    def lend(self, context: StorageContext, volume: Volume, location: str, client: Client, facts: Facts) -> Steps:
        """Let one more machine read. The undo reclaims."""

    def reclaim(self, context: StorageContext, volume: Volume, location: str, client: Client, facts: Facts) -> Steps:
        """Take that back; nothing happens when it is not lent."""

    def lent(self, context: StorageContext, volume: Volume, location: str, client: Client) -> Mapping[str, str]:
        """As `attach`, for a machine that it is lent to."""


class Sans(Protocol):
    """An export whose volumes the boot loader can attach by itself."""

    def san(self, context: StorageContext, volume: Volume, location: str, client: Client) -> SanDisk:
        """The disk, for the machine's boot script."""


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
