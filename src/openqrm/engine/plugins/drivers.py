"""Pools and exports of enabled plug-ins, by a storage's type. Implements `Drivers`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import ConflictError, InvalidError, UnsupportedError
from openqrm.domain.resource import SERVER_ID, Resource
from openqrm.engine.plugins.catalogue import validated
from openqrm.plugin_api.drivers import ExportDriver, PoolDriver, StorageContext
from openqrm.plugin_api.loading import load

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import BaseModel

    from openqrm.domain.storage import Storage
    from openqrm.engine.plugins.contexts import Contexts
    from openqrm.plugin_api.drivers import Export, Pool
    from openqrm.plugin_api.operation import Drivers
    from openqrm.plugin_api.records import Reader


@dataclass(frozen=True)
class PluginDrivers:
    """Drivers over one read of our database, which says what is enabled."""

    contexts: Contexts
    reader: Reader

    def pool(self, storage: Storage) -> PoolDriver:
        """The pool's driver; UnsupportedError when the type is not enabled."""
        driver: PoolDriver = load(self.sides(storage.type)[0].driver)()
        return driver

    def export(self, storage: Storage) -> ExportDriver:
        """The export's driver; UnsupportedError when the type is not enabled."""
        driver: ExportDriver = load(self.sides(storage.type)[1].driver)()
        return driver

    def context(self, storage: Storage, reader: Reader) -> StorageContext:
        """The storage with validated settings and its host's address; InvalidError, ConflictError, NotFoundError."""
        pool, export = self.sides(storage.type)
        own, handed = split(storage.settings, pool, export, storage.name)
        resource = reader.get(Resource, storage.resource_id)
        address = resource.address
        if address is None and resource.id == SERVER_ID:
            address = str(self.contexts.installation.get("address", "127.0.0.1"))
        if address is None:
            raise ConflictError(
                f"storage {storage.name}: resource {resource.name} has no address",
                field="resource_id",
                remedy=f"openqrm resource update {resource.name} --address ADDRESS",
            )
        return StorageContext(storage, resource.id, address, own, handed)

    def require(self, storage: Storage, capability: str) -> None:
        """UnsupportedError unless the storage's pool or export declares the capability."""
        pool, export = self.sides(storage.type)
        if capability not in pool.capabilities | export.capabilities:
            raise UnsupportedError(
                f"storage {storage.name} ({storage.type}) cannot {capability}",
                remedy=f"it can: {', '.join(sorted(pool.capabilities | export.capabilities))}",
            )

    def sides(self, kind: str) -> tuple[Pool, Export]:
        """Pool and export of a storage type; UnsupportedError when one of them is not enabled."""
        declared = self.contexts.catalogue.declared
        entry = declared.types.get(kind)
        if entry is None:
            known = ", ".join(declared.types) or "none"
            raise UnsupportedError(f"there is no storage type {kind}", field="type", remedy=f"installed: {known}")
        joined = entry[1]
        enabled = {one.name for one in self.contexts.catalogue.enabled(self.reader)}
        pool, export = declared.pools[joined.pool][1], declared.exports[joined.export][1]
        for needed in declared.providers(kind):
            if needed.name not in enabled:
                raise UnsupportedError(
                    f"storage type {kind} needs plug-in {needed.name}, which is disabled",
                    field="type",
                    remedy=f"openqrm plugin init {needed.name}",
                )
        return pool, export

    def deployment(self, kind: str) -> str:
        """How machines mount volumes of a storage type, for example `nfs-root`; UnsupportedError."""
        return self.sides(kind)[1].deployment


def drivers_over(contexts: Contexts) -> Callable[[Reader], Drivers]:
    """A factory of `Drivers` for each read."""
    return lambda reader: PluginDrivers(contexts, reader)


def split(settings: Mapping[str, Any], pool: Pool, export: Export, name: str) -> tuple[BaseModel, BaseModel]:
    """A storage's settings as its pool's and its export's; a field both declare goes to both. InvalidError."""
    known = {*pool.spec.model_fields, *export.spec.model_fields}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise InvalidError(
            f"storage {name} has no setting {unknown[0]}",
            field=f"settings.{unknown[0]}",
            remedy=f"settings of this type: {', '.join(sorted(known)) or 'none'}",
        )
    return _side(pool.spec, settings, name), _side(export.spec, settings, name)


def _side(spec: type[BaseModel], settings: Mapping[str, Any], name: str) -> BaseModel:
    return validated(spec, {key: item for key, item in settings.items() if key in spec.model_fields}, f"storage {name}")
