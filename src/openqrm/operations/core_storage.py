"""Storages: a resource plus a type that an enabled plug-in provides, with the settings that type declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.errors import ConflictError
from openqrm.domain.resource import SERVER_ID, Resource
from openqrm.domain.storage import Storage, Volume
from openqrm.operations import depending, in_use, places
from openqrm.operations.arguments import argument_attributes, creating, given, updating
from openqrm.plugin_api.operation import Operation

if TYPE_CHECKING:
    from pydantic import BaseModel

    from openqrm.operations.pipeline import CoreCall
    from openqrm.plugin_api.operation import Call
    from openqrm.plugin_api.records import Writer

StorageCreate = creating(Storage)
StorageUpdate = updating(Storage)


def create(writer: Writer, call: CoreCall) -> Storage:
    """A storage whose type is enabled, whose settings its pool and export accept, and which has a place of its own.

    UnsupportedError for a type that is not enabled, InvalidError for a wrong setting, ConflictError for a host
    without an address and for a place that another storage has.
    """
    storage = Storage(**{name: getattr(call.arguments, name) for name in type(call.arguments).model_fields})
    writer.get(Resource, storage.resource_id)
    drivers = call.drivers(writer)
    _one_at_a_time(writer)
    places.refuse_shared(writer, drivers, drivers.context(storage, writer))
    return writer.insert(storage)


def _one_at_a_time(writer: Writer) -> None:
    """No constraint of the database forbids shared places, so what makes or moves one waits for the others."""
    writer.reserve(Resource, id=SERVER_ID)


def update(writer: Writer, call: CoreCall) -> Storage:
    """Change name or settings; the settings given replace all of them and are checked as at creation.

    ConflictError for a setting that is immutable, for any while an appliance holds a lease on the storage, and for a
    place that another storage has.
    """
    storage = _target(call)
    changes = given(call.arguments)
    drivers = call.drivers(writer)
    after = drivers.context(storage.model_copy(update=changes), writer)
    if changes.get("settings", storage.settings) != storage.settings:
        depending.refuse_granted(writer, storage)
        before = drivers.context(storage, writer)
        _refuse_immutable(storage, before.pool, after.pool)
        _refuse_immutable(storage, before.export, after.export)
        _one_at_a_time(writer)
        places.refuse_shared(writer, drivers, after)
    return writer.update(storage, **changes)


def _refuse_immutable(storage: Storage, before: BaseModel, after: BaseModel) -> None:
    for name, attr in argument_attributes(type(before)).items():
        if attr.immutable and getattr(before, name) != getattr(after, name):
            raise ConflictError(
                f"storage {storage.name}: {name} is {getattr(before, name)} for good",
                field=f"settings.{name}",
                remedy="add another storage with other settings",
            )


def remove(writer: Writer, call: Call) -> None:
    """Forget a storage without volumes; nothing on its host is touched. ConflictError while it has some."""
    storage = _target(call)
    in_use.refuse(writer, storage, (Volume, "storage_id"), remedy="remove its volumes first")
    writer.delete(Storage, storage.id)


def _target(call: Call) -> Storage:
    assert isinstance(call.target, Storage)  # noqa: S101  # the declaration's target
    return call.target


_HERE = "openqrm.operations.core_storage"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="storage.create",
        title="Add a storage",
        summary="Make a resource a storage of a type that an enabled plug-in provides",
        arguments=StorageCreate,
        creates=Storage,
        act=f"{_HERE}:create",
    ),
    Operation(
        name="storage.update",
        title="Change a storage",
        summary="Change name or settings of a storage",
        target=Storage,
        arguments=StorageUpdate,
        act=f"{_HERE}:update",
    ),
    Operation(
        name="storage.remove",
        title="Remove a storage",
        summary=(
            "Forget a storage that has no volumes left, and its settings. On its host nothing is touched: "
            "its server and what lies in the pool stay."
        ),
        target=Storage,
        destroys=True,
        act=f"{_HERE}:remove",
    ),
)
