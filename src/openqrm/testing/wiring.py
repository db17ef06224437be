"""A pipeline and an API over a database of a test, wired as `bootstrap` does it but with fakes where it matters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openqrm.domain.storage import Storage
from openqrm.domain.user import Actor, User, UserRole
from openqrm.engine.changes import Changes
from openqrm.engine.journal import RecordJournal
from openqrm.operations.changes import CHANGES
from openqrm.operations.core_orders import ORDER_CHANGES
from openqrm.operations.enqueue import admission, plannings
from openqrm.operations.pipeline import Pipeline, Services
from openqrm.operations.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from openqrm.engine.ports import Database
    from openqrm.plugin_api.drivers import ExportDriver, PoolDriver, StorageContext
    from openqrm.plugin_api.operation import Call, Drivers, Operation
    from openqrm.plugin_api.plugin import Plugin
    from openqrm.plugin_api.records import Reader
    from openqrm.plugin_api.steps import Step

ADMIN = Actor("admin", UserRole.ADMIN, 1)
OPERATOR = Actor("olga", UserRole.OPERATOR, 2)
VIEWER = Actor("victor", UserRole.VIEWER, 3)


@dataclass(frozen=True)
class NoDrivers:
    """Every storage type is enabled and takes every setting; nothing can be planned with it."""

    def pool(self, storage: Storage) -> PoolDriver:
        """Nothing is driven in these tests."""
        raise LookupError(storage.type)

    def export(self, storage: Storage) -> ExportDriver:
        """Nothing is driven in these tests."""
        raise LookupError(storage.type)

    def context(self, storage: Storage, reader: Reader) -> StorageContext:
        """The storage with empty settings."""
        from openqrm.plugin_api.drivers import NoSettings, StorageContext  # noqa: PLC0415  # only where it is made

        del reader
        return StorageContext(storage, storage.resource_id, "127.0.0.1", NoSettings(), NoSettings())

    def require(self, storage: Storage, capability: str) -> None:
        """Everything is declared."""


def pipeline_of(
    database: Database,
    plugins: Iterable[Plugin] = (),
    drivers: Drivers | None = None,
    further: Iterable[Sequence[Operation]] = (),
) -> Pipeline:
    """The real registry, pipeline and journal over `database`. Dry runs show admission and the phases' names."""
    registry = Registry.of_installation(plugins, further)
    chosen = drivers or NoDrivers()
    settings: dict[str, Any] = {"deployments": {"nfs": "nfs-root"}}

    def dry_run(operation: Operation, call: Call) -> Sequence[Step]:
        with database.read() as reader:
            return (*admission(reader, operation, call), *plannings(operation))

    services = Services(
        journal=RecordJournal(database),
        changes=Changes(CHANGES | ORDER_CHANGES, settings),
        drivers=lambda reader: chosen,  # noqa: ARG005  # the fake looks at nothing
        dry_run=dry_run,
    )
    return Pipeline(database, registry, services, settings)


def add_users(database: Database) -> None:
    """The users behind `ADMIN`, `OPERATOR` and `VIEWER`; nobody can log in as them."""
    with database.write() as writer:
        for actor in (ADMIN, OPERATOR, VIEWER):
            writer.insert(User(name=actor.name, role=actor.role))
