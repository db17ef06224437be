"""What stands on a storage and its host: volumes, leases and loans, whose grants only their old place can take back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.appliance import Appliance
from openqrm.domain.errors import ConflictError
from openqrm.domain.lease import Lease, LeaseState, Loan
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.operations import loans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.domain.resource import Resource
    from openqrm.plugin_api.records import Reader

_NAMED = 3
"""How many of those in the way a message names."""


def refuse_granted(reader: Reader, storage: Storage) -> None:
    """ConflictError while a lease or loan is held on a volume of the storage: access is revoked as it was granted."""
    volumes = [volume.id for volume in reader.find(Volume, storage_id=storage.id)]
    images = [image.id for image in reader.find(Image, volume_id__in=volumes)]
    holders = reader.find(Lease, held_image__in=images, limit=_NAMED)
    if holders:
        raise ConflictError(
            f"storage {storage.name} serves appliance {_appliances(reader, holders)}",
            field="settings",
            remedy="stop those appliances first",
        )
    lent = reader.find(Loan, volume_id__in=volumes, state=LeaseState.HELD, limit=_NAMED)
    if lent:
        raise ConflictError(
            f"storage {storage.name} serves operation {loans.users(reader, lent)}",
            field="settings",
            remedy="wait for it",
        )


def refuse_borrowing(reader: Reader, resource: Resource, field: str | None = None) -> None:
    """ConflictError while the resource holds a loan: its access is granted to its address."""
    lent = reader.find(Loan, resource_id=resource.id, state=LeaseState.HELD, limit=_NAMED)
    if lent:
        raise ConflictError(
            f"resource {resource.name} works for operation {loans.users(reader, lent)}",
            field=field,
            remedy="wait for it",
        )


def refuse_moving(reader: Reader, resource: Resource) -> None:
    """ConflictError while volumes lie on the resource, or a lease or loan is its: they know it by its address."""
    leases = reader.find(Lease, held_resource=resource.id)
    if leases:
        raise ConflictError(
            f"resource {resource.name} is leased to appliance {_appliances(reader, leases)}",
            field="address",
            remedy="stop those appliances first",
        )
    refuse_borrowing(reader, resource, "address")
    for storage in reader.find(Storage, resource_id=resource.id):
        volumes = reader.find(Volume, storage_id=storage.id, limit=_NAMED)
        if volumes:
            names = ", ".join(volume.name for volume in volumes)
            raise ConflictError(
                f"resource {resource.name} is the host of storage {storage.name}, which has volumes: {names}",
                field="address",
                remedy="volumes are found at their host's address: give the host its old one, or remove them first",
            )


def refuse_holding(reader: Reader, appliance: Appliance) -> None:
    """ConflictError while the appliance holds a lease, which an abandoned operation may have left."""
    if reader.count(Lease, appliance_id=appliance.id, state=LeaseState.HELD):
        raise ConflictError(
            f"appliance {appliance.name} still holds a lease", remedy=f"openqrm appliance release {appliance.name}"
        )


def _appliances(reader: Reader, leases: Sequence[Lease]) -> str:
    return ", ".join(reader.get(Appliance, lease.appliance_id).name for lease in leases)
