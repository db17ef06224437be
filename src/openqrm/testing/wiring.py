"""A pipeline and an API over a database of a test, wired as `bootstrap` does it but with fakes where it matters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openqrm.api.context import ApiContext
from openqrm.domain.errors import UnauthenticatedError
from openqrm.domain.user import Actor, User, UserRole
from openqrm.engine.changes import Changes
from openqrm.engine.journal import RecordJournal
from openqrm.operations.changes import CHANGES
from openqrm.operations.core_orders import ORDER_CHANGES
from openqrm.operations.enqueue import admission, plannings
from openqrm.operations.pipeline import Pipeline, Services
from openqrm.operations.registry import Registry
from openqrm.plugin_api.drivers import NoSettings, StorageContext
from openqrm.store import lists as store_lists
from openqrm.store.database import SqlDatabase
from openqrm.store.histories import SqlPluginTables
from openqrm.testing.memory import MemoryTables

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from openqrm.api.lists import ListQuery, Lists, Page
    from openqrm.domain.model import Record
    from openqrm.domain.storage import Storage
    from openqrm.engine.ports import Database
    from openqrm.plugin_api.drivers import ExportDriver, PoolDriver
    from openqrm.plugin_api.operation import Call, Drivers, Operation
    from openqrm.plugin_api.plugin import Plugin
    from openqrm.plugin_api.records import Reader
    from openqrm.plugin_api.steps import Step
    from openqrm.testing.memory import MemoryDatabase

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
        del reader
        return StorageContext(storage, storage.resource_id, "127.0.0.1", NoSettings(), NoSettings())

    def require(self, storage: Storage, capability: str) -> None:
        """Everything is declared."""


def pipeline_of(
    database: Database,
    plugins: Iterable[Plugin] = (),
    drivers: Drivers | None = None,
    further: Iterable[Sequence[Operation]] = (),
    **installation: Any,
) -> Pipeline:
    """The real registry, pipeline and journal over `database`. Dry runs show admission and the phases' names.

    `installation` is what operations know of it, for example `address`.
    """
    registry = Registry.of_installation(plugins, further)
    chosen = drivers or NoDrivers()
    settings: dict[str, Any] = {"deployments": {"nfs": "nfs-root"}, "storage_types": {}} | installation

    def dry_run(operation: Operation, call: Call) -> Sequence[Step]:
        with database.read() as reader:
            return (*admission(reader, operation, call), *plannings(operation))

    services = Services(
        journal=RecordJournal(database),
        changes=Changes(CHANGES | ORDER_CHANGES, settings),
        drivers=lambda reader: chosen,  # noqa: ARG005  # the fake looks at nothing
        dry_run=dry_run,
        tables=SqlPluginTables() if isinstance(database, SqlDatabase) else MemoryTables(),
    )
    return Pipeline(database, registry, services, settings)


def add_users(database: Database) -> None:
    """The users behind `ADMIN`, `OPERATOR` and `VIEWER`; nobody can log in as them."""
    with database.write() as writer:
        for actor in (ADMIN, OPERATOR, VIEWER):
            writer.insert(User(name=actor.name, role=actor.role))


def lists_of(database: Database) -> Lists:
    """Lists over the readers of `database`."""

    def page(record: type[Record], query: ListQuery) -> Page:
        asked = store_lists.ListQuery(
            tuple(store_lists.Filter(*one) for one in query.filters),
            query.search,
            query.sort,
            query.cursor,
            query.limit,
        )
        with database.read() as reader:
            return store_lists.list_records(reader, record, asked)

    return page


class KnownTokens:
    """Authentication by three fixed tokens, named like their users; a password is right when it is the name."""

    def __init__(self, *actors: Actor) -> None:
        self.actors = {actor.name: actor for actor in actors or (ADMIN, OPERATOR, VIEWER)}

    def cached(self, header: str | None) -> Actor | None:
        """The actor of a known token."""
        return self.actors.get((header or "").removeprefix("Bearer "))

    def authenticate(self, header: str | None, address: str = "") -> Actor:
        """UnauthenticatedError: the known ones are all cached."""
        del header, address
        raise UnauthenticatedError("this token is not known")

    def login(self, name: str, password: str, address: str = "") -> tuple[Actor, str]:
        """The actor and its token."""
        del address
        if name != password or name not in self.actors:
            raise UnauthenticatedError("name or password is wrong")
        return self.actors[name], name

    def logout(self, header: str | None) -> None:
        """UnauthenticatedError for what is not known; these tokens never end."""
        if self.cached(header) is None:
            raise UnauthenticatedError("this token is not known")


def context_of(database: SqlDatabase | MemoryDatabase, pipeline: Pipeline | None = None, **further: Any) -> ApiContext:
    """The API's context over `database`."""
    return ApiContext(
        pipeline=pipeline or pipeline_of(database),
        lists=lists_of(database),
        authentication=further.pop("authentication", None) or KnownTokens(),
        on_commit=database.on_commit,
        **further,
    )
