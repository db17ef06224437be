"""A datacentre in a database: a storage on a fake host, idle machines that obey, appliances to start and stop.

The planners, the pipeline, the engine and the changes are the real ones; hosts and machines are fakes.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from openqrm.domain.appliance import Appliance, AppliancePhase
from openqrm.domain.kernel import Kernel
from openqrm.domain.lease import Lease, LeaseState, Loan
from openqrm.domain.operation import Operation as OperationRecord
from openqrm.domain.operation import OperationStatus
from openqrm.domain.resource import Desired, Phase, Resource
from openqrm.domain.storage import Image, Storage, Volume, VolumePhase
from openqrm.domain.user import SYSTEM
from openqrm.engine.changes import Changes
from openqrm.engine.planning import Planners
from openqrm.operations.changes import CHANGES
from openqrm.operations.conditions import CONDITIONS
from openqrm.operations.core_orders import ORDER_CHANGES
from openqrm.operations.pipeline import Pipeline, Services
from openqrm.operations.registry import Registry
from openqrm.testing.controller import Site, StoredSecrets
from openqrm.testing.fake_host import FakeHost, FakeHosts
from openqrm.testing.fake_machines import FakeMachines, idle_machine
from openqrm.testing.fake_storage import FAKE_TYPE, STORAGE_COMMANDS, FakeDrivers
from openqrm.testing.memory import MemoryTables

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from openqrm.engine.ports import Database
    from openqrm.plugin_api.operation import Hooks
    from openqrm.plugin_api.records import Writer
    from openqrm.plugin_api.steps import Steps

STORAGE_HOST = 1


class NoHooks:
    """No plug-in is started."""

    def appliance(self, moment: str, appliance: Appliance, resource: Resource | None) -> Steps:
        """Nothing."""
        del moment, appliance, resource
        return ()

    def resource(self, moment: str, resource: Resource) -> Steps:
        """Nothing."""
        del moment, resource
        return ()

    def kernel(self, moment: str, kernel: object) -> Steps:
        """Nothing."""
        del moment, kernel
        return ()

    def assign(self, resource: Resource, appliance: Appliance) -> tuple[()]:
        """Nothing."""
        del resource, appliance
        return ()


@dataclass
class Datacentre:
    """`machines` idle machines and as many appliances as asked for, each with an image of its own.

    All volumes are on the first storage, `fake1`; the others are empty.
    """

    database: Database
    machines: int = 2
    appliances: int = 1
    storages: int = 1
    hosts: FakeHosts = field(default_factory=FakeHosts)
    hooks: Hooks = field(default_factory=NoHooks)
    obeying: FakeMachines = field(init=False)
    site: Site = field(init=False)
    pipeline: Pipeline = field(init=False)
    site_options: Mapping[str, Any] = field(default_factory=dict)
    kind: Mapping[str, Any] = field(default_factory=dict)
    """What differs in the storages' type from `FAKE_TYPE`."""

    def __post_init__(self) -> None:
        kinds = {"fake": FAKE_TYPE | dict(self.kind)}
        settings: dict[str, Any] = {"deployments": {"fake": "fake-root"}, "storage_types": kinds}
        self.hosts.commands.update(STORAGE_COMMANDS)
        registry = Registry.of_installation()
        changes = CHANGES | ORDER_CHANGES
        planners = Planners(
            database=self.database,
            hosts=self.hosts,
            secrets=StoredSecrets(self.database),
            operation=registry.operation,
            entities=registry.entities,
            hooks=lambda reader: self.hooks,  # noqa: ARG005  # the fake looks at nothing
            drivers=FakeDrivers,
            changes=Changes(changes, settings),
            settings=settings,
            offload=_in_place,
        )
        self.site = Site(self.database, self.hosts, changes, CONDITIONS, planners.plan, **self.site_options)
        drivers: Any = FakeDrivers
        services = Services(self.site.journal, Changes(changes, settings), drivers, planners.dry_run, MemoryTables())
        self.pipeline = Pipeline(self.database, registry, services, settings)
        self.obeying = FakeMachines(self.database, self.hosts)
        self._fill()

    def _fill(self) -> None:
        with self.database.write() as writer:
            storage = self._storage(writer, 1)
            writer.insert(Kernel(name="default", version="6.1", default=True, ready=True))
            for number in range(1, self.machines + 1):
                writer.insert(idle_machine(number + 100))
            disk = self.hosts.host(STORAGE_HOST)
            for number in range(1, self.appliances + 1):
                name = f"volume{number}"
                volume = writer.insert(Volume(name=name, storage_id=storage.id, phase=VolumePhase.READY))
                image = writer.insert(Image(name=f"image{number}", volume_id=volume.id, deployment="fake-root"))
                writer.insert(Appliance(name=f"service{number}", image_id=image.id))
                disk.things[name], disk.contents[name] = "whole", f"files of {name}"
            for number in range(2, self.storages + 1):
                self._storage(writer, number)

    def _storage(self, writer: Writer, number: int) -> Storage:
        host = writer.insert(
            Resource(
                name=f"storage{number}",
                type="server",
                manual=True,
                address=f"10.0.0.{number}",
                phase=Phase.UNKNOWN,
            )
        )
        return writer.insert(Storage(name=f"fake{number}", type="fake", resource_id=host.id))

    def disk(self, storage: str = "fake1") -> FakeHost:
        """The disk of a storage's host."""
        with self.database.read() as reader:
            found = reader.one(Storage, name=storage)
        assert found is not None  # noqa: S101  # a test's assertion
        return self.hosts.host(found.resource_id)

    def running(self, number: int = 1) -> None:
        """Appliance `number` runs on machine `number`, as if it had been started and all operations were over."""
        with self.database.write() as writer:
            appliance = writer.one(Appliance, name=f"service{number}")
            machine = writer.one(Resource, name=f"node-{number + 100}")
            assert appliance is not None  # noqa: S101  # made above
            assert machine is not None  # noqa: S101
            image = writer.get(Image, appliance.image_id)
            past = writer.insert(OperationRecord(name="appliance.start", status=OperationStatus.DONE))
            writer.insert(
                Lease(
                    image_id=image.id,
                    resource_id=machine.id,
                    appliance_id=appliance.id,
                    operation_id=past.id,
                    generation=1,
                    held_image=image.id,
                    held_resource=machine.id,
                )
            )
            writer.update(writer.get(Volume, image.volume_id), generation=1)
            writer.update(appliance, phase=AppliancePhase.RUNNING, running_on=machine.id)
            writer.update(machine, phase=Phase.ACTIVE, desired=Desired.ASSIGNED)
        disk = self.hosts.host(STORAGE_HOST)
        disk.grants[f"volume-{image.volume_id}"] = (machine.name, 1, 0)
        disk.seen[f"volume-{image.volume_id}"] = (1, 0)

    def call(
        self, name: str, target: str | int, arguments: Mapping[str, Any] | None = None, **options: Any
    ) -> OperationRecord:
        """Call a planned operation as the system."""
        outcome = self.pipeline.call(name, SYSTEM, target, arguments or {}, **options)
        if outcome.operation is None:
            raise TypeError(f"{name} is not a planned operation")
        return outcome.operation

    async def settle(self) -> None:
        """Until no operation has work, with machines that obey meanwhile."""
        obeying = asyncio.create_task(self.obeying.run(self.site.notifier))
        try:
            await self.site.settle()
        finally:
            obeying.cancel()
            with suppress(asyncio.CancelledError):
                await obeying

    async def finish(self, **options: Any) -> None:
        """A controller from start to stop."""
        runner = self.site.runner(**options)
        await runner.start()
        try:
            await self.settle()
        finally:
            await runner.stop()

    def check(self) -> None:
        """What must be true whenever no operation runs: leases, grants, states and the idle pool agree."""
        with self.database.read() as reader:
            held = {lease.appliance_id: lease for lease in reader.find(Lease, state=LeaseState.HELD)}
            machines = {each.id: each for each in reader.find(Resource, manual=False)}
            appliances = reader.find(Appliance)
            images = {image.id: image for image in reader.find(Image)}
            loans = reader.find(Loan, state=LeaseState.HELD)
        self._check_volumes()
        lent = {pair for host in self.hosts.hosts.values() for pair in host.lent}
        assert lent == {(f"volume-{one.volume_id}", machines[one.resource_id].name) for one in loans}  # noqa: S101
        for loan in loans:
            keeping = self.kind.get("in_memory") and loan.appliance_id in held
            assert keeping, f"loan {loan.id} is left over"  # noqa: S101
        grants = {volume: grant for host in self.hosts.hosts.values() for volume, grant in host.grants.items()}
        expected = {}
        for appliance in appliances:
            lease = held.get(appliance.id)
            if appliance.phase is AppliancePhase.RUNNING:
                assert lease is not None, f"{appliance.name} runs without a lease"  # noqa: S101  # a test's assertion
                machine = machines[lease.resource_id]
                assert machine.phase is Phase.ACTIVE, f"{machine.name} is {machine.phase}"  # noqa: S101
                volume = f"volume-{images[appliance.image_id].volume_id}"
                if self.kind.get("start") != "disk":  # its disks are its own now
                    expected[volume] = machine.name
            else:
                assert appliance.phase is AppliancePhase.STOPPED, f"{appliance.name} is {appliance.phase}"  # noqa: S101
                assert lease is None, f"{appliance.name} is stopped and holds a lease"  # noqa: S101
        assert {volume: grant[0] for volume, grant in grants.items()} == expected, grants  # noqa: S101
        used = {lease.resource_id for lease in held.values()}
        for machine in machines.values():
            if machine.id not in used:
                assert machine.phase is Phase.IDLE, f"{machine.name} is {machine.phase}"  # noqa: S101
                assert machine.desired is Desired.IDLE, f"{machine.name} is meant to be {machine.desired}"  # noqa: S101

    def _check_volumes(self) -> None:
        """What is recorded is there, whole, and nothing else."""
        with self.database.read() as reader:
            storages = reader.find(Storage)
            volumes = reader.find(Volume)
        for storage in storages:
            mine = [volume for volume in volumes if volume.storage_id == storage.id]
            assert all(one.phase is VolumePhase.READY for one in mine), mine  # noqa: S101
            things = self.hosts.host(storage.resource_id).things
            assert things == {one.name: "whole" for one in mine}, things  # noqa: S101


async def _in_place(function: Any) -> Any:
    return function()
