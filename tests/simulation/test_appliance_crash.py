"""Start and stop an appliance with a crash at every journal boundary: it completes or is undone, nothing is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from openqrm.domain.operation import OperationStatus
from openqrm.domain.resource import MachineOrder, Resource
from openqrm.domain.storage import Image
from openqrm.domain.user import SYSTEM
from openqrm.engine import requests
from openqrm.testing import virtual
from openqrm.testing.crash import World, crash_everywhere
from openqrm.testing.datacentre import STORAGE_HOST, Datacentre
from openqrm.testing.fake_host import FakeHosts, Fault, Request
from openqrm.testing.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Callable

    from openqrm.engine.ports import Database
    from openqrm.plugin_api.records import Writer


@dataclass(frozen=True)
class CentreWorld(World):
    """A world that is a datacentre."""

    centre: Datacentre


def starting(database: Database, hosts: FakeHosts | None = None) -> CentreWorld:
    centre = Datacentre(database, hosts=hosts or FakeHosts())
    operation = centre.call("appliance.start", "service1")
    return CentreWorld(centre.site, (operation.id,), centre.settle, centre)


def stopping(database: Database) -> CentreWorld:
    centre = Datacentre(database)
    centre.running()
    operation = centre.call("appliance.stop", "service1")
    return CentreWorld(centre.site, (operation.id,), centre.settle, centre)


def consistent(world: World) -> None:
    assert isinstance(world, CentreWorld)
    world.centre.check()


def test_a_crash_at_every_boundary_of_a_start(fresh: Callable[[], Database]) -> None:
    report = virtual.run(lambda loop: crash_everywhere(lambda: starting(fresh()), [consistent]))
    assert report.boundaries >= 8
    assert all(ends == (OperationStatus.DONE,) for ends in report.ends)


def test_a_crash_at_every_boundary_of_a_stop(fresh: Callable[[], Database]) -> None:
    report = virtual.run(lambda loop: crash_everywhere(lambda: stopping(fresh()), [consistent]))
    assert report.boundaries >= 8
    assert all(ends == (OperationStatus.DONE,) for ends in report.ends)


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.DURING, Fault.AFTER, Fault.STATUS])
def test_a_start_whose_grants_fail_is_undone_after_a_crash_anywhere(
    fresh: Callable[[], Database], fault: Fault
) -> None:
    def faults(request: Request) -> Fault | None:
        return fault if request.argv[0] == "grant" else None

    report = virtual.run(
        lambda loop: crash_everywhere(lambda: starting(fresh(), FakeHosts(faults=faults)), [consistent])
    )
    assert set(report.ends) <= {(OperationStatus.FAILED,), (OperationStatus.DONE,)}
    assert (OperationStatus.FAILED,) in report.ends


def test_a_machine_that_cannot_deploy_is_given_back(fresh: Callable[[], Database]) -> None:
    def build() -> CentreWorld:
        world = starting(fresh())
        world.centre.obeying.broken.add("deploy")
        return world

    report = virtual.run(lambda loop: crash_everywhere(build, [consistent]))
    assert set(report.ends) == {(OperationStatus.FAILED,)}


def test_a_start_that_is_called_off_while_the_image_comes_up_brings_the_machine_back(
    fresh: Callable[[], Database],
) -> None:
    booted: list[str] = []

    def build() -> CentreWorld:
        world = starting(fresh())

        def call_off(writer: Writer, order: MachineOrder) -> None:
            booted.append(order.boot_id)
            requests.cancel(writer, world.operations[0])

        world.centre.obeying.call_off = call_off
        return world

    def back(world: World) -> None:
        consistent(world)
        with world.site.database.read() as reader:
            assert reader.get(Resource, reader.find(MachineOrder)[0].resource_id).boot_id != booted[-1]

    report = virtual.run(lambda loop: crash_everywhere(build, [back]))
    assert report.boundaries >= 8
    assert set(report.ends) == {(OperationStatus.FAILED,)}


def test_start_then_stop_leaves_nothing(fresh: Callable[[], Database]) -> None:
    async def body(loop: virtual.VirtualLoop) -> None:
        centre = Datacentre(fresh())
        centre.call("appliance.start", "service1")
        await centre.finish()
        assert centre.hosts.host(STORAGE_HOST).grants
        centre.check()
        centre.call("appliance.stop", "service1")
        await centre.finish()
        assert not centre.hosts.host(STORAGE_HOST).grants
        centre.check()

    virtual.run(body)


def test_an_image_that_an_appliance_once_ran_can_be_removed() -> None:
    async def body(loop: virtual.VirtualLoop) -> None:
        centre = Datacentre(MemoryDatabase(clock=loop.now), appliances=2)
        for name in ("appliance.start", "appliance.stop"):
            centre.call(name, "service1")
            await centre.finish()
        centre.call("appliance.remove", "service2")
        await centre.finish()
        centre.pipeline.call("appliance.update", SYSTEM, "service1", {"image_id": "image2"})
        centre.pipeline.call("image.remove", SYSTEM, "image1", {})
        centre.check()
        with centre.database.read() as reader:
            assert [image.name for image in reader.find(Image)] == ["image2"]

    virtual.run(body)
