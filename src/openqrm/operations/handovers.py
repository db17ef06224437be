"""Machines that boot a system of their own: from a disk on a SAN that the boot loader attaches, or their own disks.

Our kernel does not run there, and our agent need not: the last that is heard of such a machine is that it asked for its
boot script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.event import Severity
from openqrm.domain.machine import Handover
from openqrm.domain.resource import Health, MachineOrder, Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.operations import machine_orders, states
from openqrm.operations.grants import client_of, secret_keys
from openqrm.operations.storage_types import traits
from openqrm.plugin_api.drivers import Start

if TYPE_CHECKING:
    from openqrm.domain.lease import Lease
    from openqrm.operations.mounting import Surroundings
    from openqrm.plugin_api.drivers import Sans
    from openqrm.plugin_api.records import Reader, Writer

SOURCE = "machines"


def handover(reader: Reader, resource: Resource, lease: Lease, around: Surroundings) -> Handover | None:
    """What the machine boots instead of a kernel of ours, under its lease; None for a kernel.

    A machine boots from its own disks only once it has said that the image is on them.
    """
    image = reader.get(Image, lease.image_id)
    volume = reader.get(Volume, image.volume_id)
    storage = reader.get(Storage, volume.storage_id)
    kind = traits(around.settings, storage)
    if kind.start is Start.SAN:
        return _san(reader, resource, lease, storage, volume, around)
    if kind.start is Start.DISK and _written(reader, lease):
        return Handover()
    return None


def _san(
    reader: Reader, resource: Resource, lease: Lease, storage: Storage, volume: Volume, around: Surroundings
) -> Handover:
    drivers = around.drivers(reader)
    place = drivers.context(storage, reader)
    location = drivers.pool(storage).location(place, volume)
    export: Sans = drivers.export(storage)  # type: ignore[assignment]  # exports that start by SAN go through one of these
    disk = export.san(place, volume, location, client_of(resource))
    password = ""
    if disk.secret:
        password = around.secret(secret_keys(volume.id, lease.generation, (disk.secret,))[disk.secret])
    return Handover(disk.uri, disk.initiator, disk.user, password)


def _written(reader: Reader, lease: Lease) -> bool:
    """Whether the order to deploy under this lease is done."""
    orders = reader.find(MachineOrder, resource_id=lease.resource_id, verb="deploy", state="done")
    return any(order.details.get("lease_id") == lease.id for order in orders)


def handed_over(writer: Writer, resource: Resource) -> None:
    """The machine was given its boot script, so it runs its own system from here on, as far as anybody can tell."""
    order = machine_orders.deploy_pending(writer, resource)
    if order is not None:
        writer.update(order, state="done", progress=100, text="its boot loader was given the disk")
    states.apply(writer, resource, "phase", "handed-over")
    writer.update(writer.get(Resource, resource.id), agentless=True, health=Health.UNKNOWN)
    text = f"{resource.name} boots the system of its appliance; it is not heard until it comes back to idle"
    writer.event(text, severity=Severity.INFO, source=SOURCE, about=resource)
