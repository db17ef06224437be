"""Appliances whose roots are filled from other images, are in memory, or on the machine's disks: crashes everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.simulation.test_appliance_crash import CentreWorld, consistent

from openqrm.domain.errors import ConflictError
from openqrm.domain.operation import OperationStatus
from openqrm.domain.resource import MachineOrder, Resource
from openqrm.domain.storage import Image
from openqrm.testing import virtual
from openqrm.testing.crash import World, crash_everywhere
from openqrm.testing.datacentre import Datacentre
from openqrm.testing.fake_host import FakeHosts, Fault, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from openqrm.engine.ports import Database

DONE = (OperationStatus.DONE,)


def filled(database: Database, hosts: FakeHosts | None = None, **kind: Any) -> Datacentre:
    """Image 1 is to be installed from image 2."""
    centre = Datacentre(database, appliances=2, hosts=hosts or FakeHosts(), kind=kind)
    with database.write() as writer:
        first, second = writer.find(Image)
        writer.update(first, install_from_id=second.id)
    return centre


def starting(centre: Datacentre) -> CentreWorld:
    operation = centre.call("appliance.start", "service1")
    return CentreWorld(centre.site, (operation.id,), centre.settle, centre)


def image(world: World) -> Image:
    with world.site.database.read() as reader:
        found: Image = reader.find(Image)[0]
    return found


def test_a_root_is_filled_once_and_what_it_was_filled_from_is_free_again(fresh: Callable[[], Database]) -> None:
    def check(world: World) -> None:
        consistent(world)
        assert image(world).install_from_id is None

    report = virtual.run(lambda loop: crash_everywhere(lambda: starting(filled(fresh())), [check]))
    assert set(report.ends) == {DONE}


@pytest.mark.parametrize("verb", ["lend", "grant"])
def test_a_start_whose_lending_fails_leaves_the_image_as_it_was(fresh: Callable[[], Database], verb: str) -> None:
    def faults(request: Request) -> Fault | None:
        return Fault.STATUS if request.argv[0] == verb else None

    def check(world: World) -> None:
        consistent(world)
        with world.site.database.read() as reader:
            failed = not reader.find(Resource, phase="active")
        assert (image(world).install_from_id is not None) == failed

    build = lambda: starting(filled(fresh(), FakeHosts(faults=faults)))  # noqa: E731
    report = virtual.run(lambda loop: crash_everywhere(build, [check]))
    assert (OperationStatus.FAILED,) in report.ends


def test_an_image_that_another_is_filled_from_does_not_start_meanwhile(fresh: Callable[[], Database]) -> None:
    centre = filled(fresh())
    centre.call("appliance.start", "service1")
    with pytest.raises(ConflictError, match="is being read by operation"):
        centre.call("appliance.start", "service2")


def test_a_root_in_memory_keeps_what_fills_it_until_it_stops(fresh: Callable[[], Database]) -> None:
    centre = filled(fresh(), in_memory=True)
    for verb, lent in (("appliance.start", 1), ("appliance.stop", 0)):
        centre.call(verb, "service1")
        virtual.run(lambda loop: centre.finish())
        centre.check()
        assert len(centre.disk().lent) == lent
    with centre.database.read() as reader:
        assert reader.find(Image)[0].install_from_id is not None


def test_a_root_in_memory_that_nothing_fills_is_refused(fresh: Callable[[], Database]) -> None:
    centre = Datacentre(fresh(), kind={"in_memory": True})
    with pytest.raises(ConflictError, match="nothing that it is filled from"):
        centre.call("appliance.start", "service1")


def test_whole_disks_are_granted_only_while_they_are_written_or_taken(fresh: Callable[[], Database]) -> None:
    def build(verb: str) -> CentreWorld:
        centre = Datacentre(fresh(), kind={"start": "disk", "through": "fake-root"})
        centre.obeying.disks = True
        if verb == "appliance.stop":
            centre.running()
            centre.hosts.host(1).grants.clear()
        operation = centre.call(verb, "service1")
        return CentreWorld(centre.site, (operation.id,), centre.settle, centre)

    def grabbed(world: World) -> None:
        consistent(world)
        with world.site.database.read() as reader:
            assert reader.find(MachineOrder, verb="grab", state="done")

    for verb, checks in (("appliance.start", [consistent]), ("appliance.stop", [grabbed])):
        report = virtual.run(lambda loop, verb=verb, checks=checks: crash_everywhere(lambda: build(verb), checks))  # type: ignore[misc]
        assert set(report.ends) == {DONE}, verb
