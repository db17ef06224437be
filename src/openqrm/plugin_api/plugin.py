"""How a plug-in is declared: one frozen object, which imports no driver."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from openqrm.plugin_api.drivers import Export, NoSettings, Pool, StorageType
from openqrm.plugin_api.hooks import HookSet

if TYPE_CHECKING:
    from pydantic import BaseModel

    from openqrm.domain.model import Record
    from openqrm.plugin_api.operation import Operation

ENTRY_POINTS = "openqrm.plugins"
"""The entry-point group third-party plug-ins register their `Plugin` object under."""


class Family(StrEnum):
    """Where a plug-in lives in the tree and in menus."""

    STORAGE = "storage"
    NETWORK = "network"
    VIRTUALIZATION = "virtualization"
    MONITORING = "monitoring"
    CONFIGURATION = "configuration"
    CLOUD = "cloud"
    OTHER = "other"


@dataclass(frozen=True)
class Dependency:
    """A command that must be on PATH (or a file, by its absolute path), and the Debian package that has it."""

    command: str
    package: str


@dataclass(frozen=True)
class Requires:
    """What must be there before a plug-in can be enabled."""

    plugins: tuple[str, ...] = ()
    commands: tuple[Dependency, ...] = ()


@dataclass(frozen=True)
class Service:
    """A server process of a plug-in, supervised as a child: restarted with backoff, its output kept.

    `prepare` is `module:function`, an async function `(ServiceContext) -> ServiceCommand`, called before each start;
    `ready` an async `(ServiceContext) -> None` called after it, for example to replay state into a fresh daemon.
    """

    name: str
    prepare: str
    ready: str | None = None


@dataclass(frozen=True)
class ServiceCommand:
    """What to run. `environment` is added to ours."""

    argv: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    directory: str | None = None


@dataclass(frozen=True)
class NodeFile:
    """A file handed to machines, for example `root-mount.nfs-root`; `path` is relative to the plug-in's folder."""

    name: str
    path: str


@dataclass(frozen=True)
class BootService:
    """A folder with `start` and `stop`, packed and run on machines by the agent; relative to the plug-in's folder."""

    name: str
    path: str


@dataclass(frozen=True)
class Plugin:
    """The declaration. `module` is the package of the plug-in, for files beside it."""

    name: str
    family: Family
    title: str
    summary: str
    module: str
    provides: tuple[Pool | Export | StorageType, ...] = ()
    operations: tuple[Operation, ...] = ()
    hooks: HookSet = HookSet()
    services: tuple[Service, ...] = ()
    node_files: tuple[NodeFile, ...] = ()
    boot_services: tuple[BootService, ...] = ()
    node_programs: tuple[Dependency, ...] = ()
    """Programs of the server that machines fetch, with their libraries, when a hook calls `need_programs`."""
    settings: type[BaseModel] = NoSettings
    entities: tuple[type[Record], ...] = ()
    """Records of its own, whose names and plurals begin with the plug-in's name; `migrations/` beside its code makes
    their tables (`openqrm database revision --plugin NAME -m WHY`)."""
    requires: Requires = Requires()
    init: str | None = None
    """`module:function`, `(Writer, settings) -> None`: what enabling does, in one transaction."""
    uninstall: str | None = None
    about: str = ""
