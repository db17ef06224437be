"""Move images, grow and snapshot volumes with a crash at every journal boundary: done or undone, nothing is left."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.errors import ConflictError, InvalidError, NoCapacityError
from openqrm.domain.operation import Operation as OperationRecord
from openqrm.domain.operation import OperationStatus
from openqrm.domain.resource import Health, MachineOrder, Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.engine import requests
from openqrm.testing import virtual
from openqrm.testing.crash import World, crash_everywhere
from openqrm.testing.datacentre import Datacentre
from openqrm.testing.fake_host import FakeHosts, Fault, Request
from openqrm.testing.fake_storage import FakePool
from openqrm.testing.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Callable

    from openqrm.engine.ports import Database
    from openqrm.plugin_api.drivers import Cap
    from openqrm.plugin_api.records import Writer
    from openqrm.plugin_api.steps import Steps

DONE, FAILED = (OperationStatus.DONE,), (OperationStatus.FAILED,)
FILES = "files of volume1"


@dataclass(frozen=True)
class CentreWorld(World):
    """A world that is a datacentre."""

    centre: Datacentre


def calling(
    database: Database, name: str, target: str, hosts: FakeHosts | None = None, /, **arguments: Any
) -> CentreWorld:
    """Two storages, the image of `service1` on the first, two idle machines; one operation called."""
    centre = Datacentre(database, storages=2, hosts=hosts or FakeHosts())
    operation = centre.call(name, target, arguments)
    return CentreWorld(centre.site, (operation.id,), centre.settle, centre)


def moving(database: Database, hosts: FakeHosts | None = None, /, **arguments: Any) -> CentreWorld:
    return calling(database, "image.move", "image1", hosts, to_id="fake2", **arguments)


def where(centre: Datacentre) -> tuple[str, str]:
    """The storage the image is on, and what is in it there."""
    with centre.database.read() as reader:
        image = reader.one(Image, name="image1")
        assert image is not None
        volume = reader.get(Volume, image.volume_id)
        storage = reader.get(Storage, volume.storage_id)
    return storage.name, centre.disk(storage.name).contents[volume.name]


def consistent(world: World) -> None:
    """Records, storages, grants, loans and machines agree, and the image has its files, wherever it is."""
    assert isinstance(world, CentreWorld)
    world.centre.check()
    moved = world.site.status(world.operations[0]) is OperationStatus.DONE
    assert where(world.centre) == ("fake2" if moved else "fake1", FILES)


def crash_all(build: Callable[[], CentreWorld], *invariants: Callable[[World], None]) -> set[tuple[Any, ...]]:
    report = virtual.run(lambda loop: crash_everywhere(build, list(invariants)))
    assert report.boundaries >= 7
    return set(report.ends)


def test_a_crash_at_every_boundary_of_a_move(fresh: Callable[[], Database]) -> None:
    def gone(world: World) -> None:
        assert isinstance(world, CentreWorld)
        assert world.centre.disk("fake1").things == {}
        assert world.centre.disk("fake1").contents == {}

    assert crash_all(lambda: moving(fresh()), consistent, gone) == {DONE}


def test_the_old_volume_may_be_kept(fresh: Callable[[], Database]) -> None:
    def kept(world: World) -> None:
        assert isinstance(world, CentreWorld)
        assert world.centre.disk("fake1").contents == {"volume1": FILES}
        assert world.centre.disk("fake2").contents == {"other": FILES}

    assert crash_all(lambda: moving(fresh(), keep_source=True, name="other"), consistent, kept) == {DONE}


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.DURING, Fault.AFTER, Fault.STATUS])
@pytest.mark.parametrize("verb", ["make", "grant"])
def test_a_move_that_a_host_fails_is_undone_after_a_crash_anywhere(verb: str, fault: Fault) -> None:
    def faults(request: Request) -> Fault | None:
        return fault if request.argv[0] == verb else None

    ends = crash_all(lambda: moving(MemoryDatabase(), FakeHosts(faults=faults)), consistent)
    assert ends <= {DONE, FAILED}
    assert FAILED in ends


def test_a_machine_that_cannot_copy_is_given_back(fresh: Callable[[], Database]) -> None:
    def build() -> CentreWorld:
        world = moving(fresh())
        world.centre.obeying.broken.add("transfer")
        return world

    assert crash_all(build, consistent) == {FAILED}


def test_a_move_that_is_called_off_halfway_restarts_the_machine_first(fresh: Callable[[], Database]) -> None:
    """Nothing is taken from under a machine that still copies."""
    boots: list[str] = []

    def build() -> CentreWorld:
        world = moving(fresh())

        def call_off(writer: Writer, order: MachineOrder) -> None:
            boots.append(order.boot_id)
            world.centre.obeying.endless.add(order.id)
            requests.cancel(writer, world.operations[0])

        world.centre.obeying.halfway = call_off
        return world

    def restarted(world: World) -> None:
        with world.site.database.read() as reader:
            assert reader.get(Resource, reader.find(MachineOrder)[0].resource_id).boot_id != boots[-1]

    assert crash_all(build, consistent, restarted) == {FAILED}


def test_a_machine_that_restarts_halfway_goes_on_with_it(fresh: Callable[[], Database]) -> None:
    def build() -> CentreWorld:
        world = moving(fresh())
        obeying = world.centre.obeying

        def restart(writer: Writer, order: MachineOrder) -> None:
            obeying.halfway = None
            obeying.boot(writer, writer.get(Resource, order.resource_id))

        obeying.halfway = restart
        return world

    assert crash_all(build, consistent) == {DONE}


def test_a_crash_at_every_boundary_of_a_resize(fresh: Callable[[], Database]) -> None:
    def grown(world: World) -> None:
        assert isinstance(world, CentreWorld)
        world.centre.check()
        assert world.centre.disk().sizes == {"volume1": 700}
        with world.site.database.read() as reader:
            assert reader.find(Volume)[0].size_mb == 700

    assert crash_all(lambda: calling(fresh(), "volume.resize", "volume1", size_mb=700), grown) == {DONE}


def test_a_resize_that_fails_lets_the_volume_go(fresh: Callable[[], Database]) -> None:
    def faults(request: Request) -> Fault | None:
        return Fault.STATUS if request.argv[0] == "resize" else None

    def same(world: World) -> None:
        assert isinstance(world, CentreWorld)
        world.centre.check()
        with world.site.database.read() as reader:
            assert reader.find(Volume)[0].size_mb == 0

    hosts = FakeHosts(faults=faults)
    assert crash_all(lambda: calling(fresh(), "volume.resize", "volume1", hosts, size_mb=700), same) == {FAILED}


def test_a_crash_at_every_boundary_of_a_snapshot(fresh: Callable[[], Database]) -> None:
    def there(world: World) -> None:
        assert isinstance(world, CentreWorld)
        world.centre.check()
        with world.site.database.read() as reader:
            made = reader.one(Volume, name="before")
        assert made is not None
        assert (made.parent_id, made.size_mb, made.root_device) == (1, 50, "/pool/before")

    assert crash_all(lambda: calling(fresh(), "volume.snapshot", "volume1", name="before", size_mb=50), there) == {DONE}


# One story each, without crashes


def run(story: Callable[[Datacentre], Any], **options: Any) -> None:
    async def body(loop: virtual.VirtualLoop) -> None:
        await story(Datacentre(MemoryDatabase(clock=loop.now), storages=2, **options))

    virtual.run(body)


def test_an_image_that_was_moved_starts_and_moves_back() -> None:
    async def story(centre: Datacentre) -> None:
        for target in ("fake2", "fake1"):
            centre.call("image.move", "image1", {"to_id": target})
            await centre.finish()
            assert where(centre) == (target, FILES)
            centre.call("appliance.start", "service1")
            await centre.finish()
            centre.check()
            centre.call("appliance.stop", "service1")
            await centre.finish()
            centre.check()

    run(story)


def test_nobody_starts_an_image_that_moves_and_no_running_one_moves() -> None:
    async def story(centre: Datacentre) -> None:
        centre.call("image.move", "image1", {"to_id": "fake2"})
        with pytest.raises(ConflictError, match="written by operation"):
            centre.call("appliance.start", "service1")
        with pytest.raises(ConflictError, match="written by operation"):
            centre.call("volume.resize", 1, {"size_mb": 9})
        await centre.finish()
        centre.call("appliance.start", "service1")
        await centre.finish()
        with pytest.raises(ConflictError, match="in use by appliance service1"):
            centre.call("image.move", "image1", {"to_id": "fake1"})
        with pytest.raises(ConflictError, match="in use by appliance service1"):
            centre.call("volume.resize", 2, {"size_mb": 9})
        centre.check()

    run(story)


def test_a_move_waits_for_an_idle_machine_when_asked_to() -> None:
    async def story(centre: Datacentre) -> None:
        centre.call("image.move", "image1", {"to_id": "fake2"})
        with pytest.raises(NoCapacityError, match="no machine is idle to copy with"):
            centre.call("image.move", "image2", {"to_id": "fake2"})
        waiting = centre.call("image.move", "image2", {"to_id": "fake2"}, wait=True)
        await centre.finish()
        assert centre.site.status(waiting.id) is OperationStatus.DONE
        centre.check()

    run(story, machines=1, appliances=2)


def test_how_far_the_machine_has_copied_is_shown_with_the_operation() -> None:
    async def story(centre: Datacentre) -> None:
        begun = asyncio.Event()

        def half(writer: Writer, order: MachineOrder) -> None:
            centre.obeying.endless.add(order.id)
            writer.update(order, text="copied 5 GB")
            begun.set()

        centre.obeying.halfway = half
        operation = centre.call("image.move", "image1", {"to_id": "fake2"})
        running = asyncio.ensure_future(centre.finish())
        await begun.wait()
        await asyncio.sleep(5)
        work = centre.site.work(operation.id)
        assert work.record("copied").output == {"progress": 50, "text": "copied 5 GB"}
        centre.obeying.endless.clear()
        await running
        assert centre.site.status(operation.id) is OperationStatus.DONE

    run(story)


def test_a_named_machine_copies() -> None:
    async def story(centre: Datacentre) -> None:
        centre.call("image.move", "image1", {"to_id": "fake2", "resource_id": "node-102"})
        with pytest.raises(ConflictError, match="node-102 is assigned"):
            centre.call("image.move", "image2", {"to_id": "fake2", "resource_id": "node-102"})
        await centre.finish()
        with centre.database.read() as reader:
            worker = reader.one(Resource, name="node-102")
            assert worker is not None
            assert {order.resource_id for order in reader.find(MachineOrder)} == {worker.id}
        centre.check()

    run(story, appliances=2)


def test_once_the_image_is_switched_over_it_stays_there_whatever_the_old_storage_does() -> None:
    """The old host is away: the operation waits for it and cannot be called off; then the old volume goes."""

    async def story(centre: Datacentre) -> None:
        old = centre.disk("fake1")

        def faults(request: Request) -> Fault | None:
            return Fault.BEFORE if request.argv[0] == "unmake" else None

        centre.hosts.faults = faults
        operation = centre.call("image.move", "image1", {"to_id": "fake2"})
        runner = centre.site.runner()
        await runner.start()
        while "unmake" not in [request.argv[0] for request in centre.hosts.requests if request.host == 1]:
            centre.obeying.tick()
            await asyncio.sleep(1)
        await asyncio.sleep(3600)
        assert where(centre) == ("fake2", FILES)
        assert centre.site.status(operation.id) is OperationStatus.RUNNING
        assert old.things == {"volume1": "whole"}
        centre.hosts.faults = lambda request: None
        await centre.settle()
        await runner.stop()
        assert centre.site.status(operation.id) is OperationStatus.DONE
        centre.check()

    run(story)


def refused(centre: Datacentre, operation: OperationRecord, why: str) -> None:
    """It failed before anything was copied or made, and everything is as before."""
    assert centre.site.status(operation.id) is OperationStatus.FAILED
    assert why in str(centre.site.work(operation.id).operation.error)
    assert where(centre) == ("fake1", FILES)
    assert centre.disk("fake2").things == {}
    with centre.database.read() as reader:
        assert not reader.find(MachineOrder)
    centre.check()


def test_what_the_old_pool_refuses_to_remove_is_not_copied_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*arguments: Any) -> Steps:
        del arguments
        raise ConflictError("there is no such pool")

    async def story(centre: Datacentre) -> None:
        monkeypatch.setattr(FakePool, "remove", away)
        operation = centre.call("image.move", "image1", {"to_id": "fake2"})
        await centre.finish()
        refused(centre, operation, "there is no such pool")
        operation = centre.call("image.move", "image1", {"to_id": "fake2", "keep_source": True})
        await centre.finish()
        assert centre.site.status(operation.id) is OperationStatus.DONE

    run(story)


@pytest.mark.parametrize(("lacks", "moves"), [("", True), ("clone-cow", False), ("clone-cow snapshot", True)])
def test_a_volume_that_its_snapshots_need_is_not_removed_by_a_move(
    monkeypatch: pytest.MonkeyPatch, lacks: str, *, moves: bool
) -> None:
    """Where a clone is a copy of every block, a snapshot holds only what differs from its source."""

    def confirms(pool: FakePool, capability: Cap, *arguments: Any) -> bool:
        del pool, arguments
        return capability not in lacks.split()

    async def story(centre: Datacentre) -> None:
        monkeypatch.setattr(FakePool, "confirms", confirms, raising=False)
        centre.call("volume.snapshot", "volume1", {"name": "before", "size_mb": 50})
        await centre.finish()
        operation = centre.call("image.move", "image1", {"to_id": "fake2"})
        await centre.finish()
        if not moves:
            refused(centre, operation, "as long as a snapshot of it is there: before may be one")
            operation = centre.call("image.move", "image1", {"to_id": "fake2", "keep_source": True})
            await centre.finish()
        assert centre.site.status(operation.id) is OperationStatus.DONE
        assert where(centre) == ("fake2", FILES)
        assert ("volume1" in centre.disk("fake1").things) == (not moves)

    run(story)


def test_a_machine_that_is_lost_is_given_up_when_its_access_can_be_revoked() -> None:
    async def story(centre: Datacentre) -> None:
        def die(writer: Writer, order: MachineOrder) -> None:
            centre.obeying.dead.add(order.resource_id)
            writer.update(writer.get(Resource, order.resource_id), health=Health.LOST)

        centre.obeying.halfway = die
        operation = centre.call("image.move", "image1", {"to_id": "fake2"})
        await centre.finish()
        assert centre.site.status(operation.id) is OperationStatus.FAILED
        assert "is lost" in str(centre.site.work(operation.id).operation.error)
        centre.check()

    run(story)


def test_a_volume_only_grows() -> None:
    async def story(centre: Datacentre) -> None:
        centre.call("volume.resize", "volume1", {"size_mb": 100})
        await centre.finish()
        for size in (99, 100):
            with pytest.raises(InvalidError, match="it only grows"):
                centre.call("volume.resize", "volume1", {"size_mb": size})

    run(story)
