"""A small datacentre in a database: machines that register, and an appliance to run on them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.appliance import Appliance, ApplianceDesired, AppliancePhase
from openqrm.domain.event import Event
from openqrm.domain.kernel import Kernel
from openqrm.domain.lease import Lease
from openqrm.domain.network import AddressRange, Network
from openqrm.domain.operation import Operation
from openqrm.domain.resource import MachineOrder, Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.netboot import tickets
from openqrm.operations import machines, states
from openqrm.operations.machine_report import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.engine.ports import Database

MAC = "52:54:00:00:00:01"


@dataclass
class World:
    """Shortcuts over one database."""

    database: Database
    heard: set[int] = field(default_factory=set)
    _boots: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def report(self, boot: str = "", mac: str = MAC, **fields: Any) -> Report:
        body = {
            "mac": mac,
            "boot_id": boot or f"00000000-{next(self._boots)}",
            "stage": "initramfs",
            "kernel": "6.1",
            "memory_mb": 512,
            "cpus": 2,
            "nics": [{"name": "eth0", "mac": mac, "driver": "virtio_net"}],
        }
        return Report.model_validate(body | fields)

    def try_register(self, report: Report, source: str = "10.99.0.201") -> machines.Result:
        around = machines.Circumstances(self.heard.__contains__, source)
        with self.database.write() as writer:
            return machines.register(writer, report, around)

    def register(self, boot: str = "", mac: str = MAC, **fields: Any) -> machines.Registered:
        result = self.try_register(self.report(boot, mac, **fields))
        assert isinstance(result, machines.Registered), result
        return result

    def refused(self, boot: str = "", mac: str = MAC, **fields: Any) -> machines.Refused:
        result = self.try_register(self.report(boot, mac, **fields))
        assert isinstance(result, machines.Refused), result
        return result

    def ticket(self, resource_id: int) -> str:
        with self.database.write() as writer:
            return tickets.issue(writer, writer.get(Resource, resource_id))

    def resource(self, resource_id: int) -> Resource:
        with self.database.read() as reader:
            return reader.get(Resource, resource_id)

    def orders(self, resource_id: int) -> Sequence[MachineOrder]:
        with self.database.read() as reader:
            return reader.find(MachineOrder, resource_id=resource_id)

    def events(self, severity: str | None = None) -> list[str]:
        with self.database.read() as reader:
            return [one.text for one in reader.find(Event) if severity in (None, str(one.severity))]

    def order(self, resource_id: int, verb: str) -> MachineOrder:
        with self.database.write() as writer:
            boot = writer.get(Resource, resource_id).boot_id or ""
            return writer.insert(MachineOrder(resource_id=resource_id, verb=verb, boot_id=boot, operation_id=1))

    def phase(self, resource_id: int, event: str) -> None:
        with self.database.write() as writer:
            states.apply(writer, writer.get(Resource, resource_id), "phase", event)

    def lease(self, resource_id: int, *, phase: AppliancePhase = AppliancePhase.STARTING) -> Lease:
        """An appliance `web` that holds a lease, at generation 1, on this resource."""
        with self.database.write() as writer:
            storage = writer.insert(Storage(name="store", type="nfs-storage", resource_id=resource_id))
            volume = writer.insert(Volume(name="debian", storage_id=storage.id, generation=1))
            image = writer.insert(Image(name="debian", volume_id=volume.id, fresh=True, root_password_hash="$6$x"))
            appliance = writer.insert(
                Appliance(name="web", image_id=image.id, phase=phase, desired=ApplianceDesired.RUNNING)
            )
            return writer.insert(
                Lease(
                    image_id=image.id,
                    resource_id=resource_id,
                    appliance_id=appliance.id,
                    operation_id=1,
                    generation=1,
                    held_image=image.id,
                    held_resource=resource_id,
                )
            )

    def appliance_becomes(self, phase: AppliancePhase, desired: ApplianceDesired = ApplianceDesired.RUNNING) -> None:
        with self.database.write() as writer:
            (appliance,) = writer.find(Appliance)
            writer.update(appliance, phase=phase, desired=desired)


@pytest.fixture
def world(database: Database) -> World:
    with database.write() as writer:
        writer.insert(Kernel(name="default", version="6.1", default=True, ready=True, arguments="quiet"))
        writer.insert(Operation(name="appliance.start"))
        writer.insert(
            Network(
                name="management",
                cidr="10.99.0.0/24",
                gateway="10.99.0.1",
                machines=AddressRange(first="10.99.0.20", last="10.99.0.23"),
                discovery=AddressRange(first="10.99.0.200", last="10.99.0.250"),
            )
        )
    return World(database)
