"""Where storages keep their volumes: a place on a host belongs to one of them.

Leases forbid that an image is written twice, and know it by its volume's record. Two records of one directory would be
two volumes to them, and the same image could run on two machines.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from openqrm.domain.errors import ConflictError, InvalidError, NotFoundError, UnsupportedError
from openqrm.domain.storage import Storage
from openqrm.plugin_api.drivers import Placed

if TYPE_CHECKING:
    from openqrm.plugin_api.drivers import StorageContext
    from openqrm.plugin_api.operation import Drivers
    from openqrm.plugin_api.records import Reader


def overlap(one: str, other: str) -> bool:
    """Whether two places are the same, or one contains the other."""
    first, second = _parts(one), _parts(other)
    shorter = min(len(first), len(second))
    return first[:shorter] == second[:shorter]


def refuse_shared(reader: Reader, drivers: Drivers, asked: StorageContext) -> None:
    """ConflictError when another storage on the same host keeps volumes at, in or around the place of this one."""
    if not isinstance(asked.pool, Placed):
        return
    for name, place in others(reader, drivers, asked):
        if overlap(asked.pool.place, place):
            raise ConflictError(
                f"storage {name} keeps its volumes in {place} on {asked.address}: {asked.pool.place} is not free",
                field="settings",
                remedy="a storage has a place of its own: choose one beside it, or use that storage",
            )


def others(reader: Reader, drivers: Drivers, asked: StorageContext) -> list[tuple[str, str]]:
    """Name and place of every other storage on the same host, which is known by its resource or by its address.

    Those that cannot be used are not among them: of disabled plug-ins, without an address, of settings not valid now.
    """
    found = []
    for storage in reader.find(Storage, id__ne=asked.storage.id):
        with suppress(UnsupportedError, ConflictError, NotFoundError, InvalidError):
            context = drivers.context(storage, reader)
            same = context.host == asked.host or context.address == asked.address
            if same and isinstance(context.pool, Placed):
                found.append((storage.name, context.pool.place))
    return found


def _parts(place: str) -> list[str]:
    return [part for part in place.split("/") if part not in ("", ".")]
