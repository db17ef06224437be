"""Audits and checks of storages: what they find, what they set right, and that a crash anywhere changes nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.errors import ConflictError
from openqrm.domain.event import Event
from openqrm.domain.lease import Lease, LeaseState, Loan
from openqrm.domain.operation import Operation, OperationStatus
from openqrm.domain.resource import Desired, Resource
from openqrm.domain.storage import Volume, VolumePhase
from openqrm.domain.user import SYSTEM
from openqrm.testing import virtual
from openqrm.testing.crash import World, crash_everywhere
from openqrm.testing.datacentre import Datacentre
from openqrm.testing.fake_host import FakeHosts, Fault, Request
from openqrm.testing.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Callable

    from openqrm.engine.ports import Database

Findings = list[tuple[str, str]]


@dataclass(frozen=True)
class CentreWorld(World):
    """A world that is a datacentre."""

    centre: Datacentre


def run(story: Callable[[Datacentre], Any], **options: Any) -> None:
    async def body(loop: virtual.VirtualLoop) -> None:
        await story(Datacentre(MemoryDatabase(clock=loop.now), **options))

    virtual.run(body)


def report(centre: Datacentre, operation: int) -> dict[str, Any]:
    work = centre.site.work(operation)
    assert work.operation.status is OperationStatus.DONE, work.operation.error
    assert work.operation.result is not None
    found: dict[str, Any] = work.operation.result["report"]
    return found


async def ask(centre: Datacentre, name: str, **arguments: Any) -> Findings:
    """Kind and text of what is found."""
    operation = centre.call(name, "fake1", arguments)
    await centre.finish()
    return [(one["kind"], one["text"]) for one in report(centre, operation.id)["findings"]]


def test_nothing_is_found_where_all_is_well() -> None:
    async def story(centre: Datacentre) -> None:
        assert await ask(centre, "storage.audit") == []
        assert await ask(centre, "storage.check") == []
        centre.call("appliance.start", "service1")
        await centre.finish()
        assert await ask(centre, "storage.audit") == []
        assert await ask(centre, "storage.audit", fix=True) == []
        centre.check()

    run(story)


def test_an_audit_finds_every_kind_of_wrong_grant() -> None:
    async def story(centre: Datacentre) -> None:
        for number in (1, 2, 3):
            centre.running(number)
        disk = centre.disk()
        disk.foreign.add(("/pool/volume1", "10.9.9.9"))
        disk.grants["volume-1"] = ("node-102", 1, 0)
        disk.grants["volume-2"] = ("node-102", 7, 0)
        del disk.grants["volume-3"]
        disk.grants["volume-4"] = ("node-101", 1, 0)
        disk.grants["volume-77"] = ("node-101", 1, 0)
        assert sorted(await ask(centre, "storage.audit")) == [
            ("missing grant", "node-101 may not write it, for appliance service1, generation 1"),
            ("missing grant", "node-102 may not write it, for appliance service2, generation 1"),
            ("missing grant", "node-103 may not write it, for appliance service3, generation 1"),
            ("unexpected grant", "10.9.9.9 may write /pool/volume1: it was made by hand"),
            ("unexpected grant", "node-101 may write volume-4: no lease or loan is held"),
            ("unexpected grant", "node-101 may write volume-77: there is no volume 77"),
            ("unexpected grant", "node-102 may write volume-1: the volume is node-101's, for appliance service1"),
            ("unexpected grant", "node-102 may write volume-2: its generation is 7, not 1"),
        ]
        assert len(disk.grants) == 4, "it only looked"

    run(story, machines=4, appliances=4)


def wrong(database: Database, hosts: FakeHosts | None = None) -> CentreWorld:
    """A grant to the wrong machine, one that nobody knows, one of a volume in no use, a missing one; and the fix."""
    centre = Datacentre(database, machines=3, appliances=3, hosts=hosts or FakeHosts())
    for number in (1, 2):
        centre.running(number)
    disk = centre.disk()
    disk.grants["volume-1"] = ("node-102", 1, 0)
    del disk.grants["volume-2"]
    disk.grants["volume-3"] = ("node-103", 0, 0)
    disk.foreign.add(("/pool/volume2", "somebody"))
    operation = centre.call("storage.audit", "fake1", {"fix": True})
    return CentreWorld(centre.site, (operation.id,), centre.settle, centre)


def test_a_crash_at_every_boundary_of_an_audit_that_sets_right(fresh: Callable[[], Database]) -> None:
    def right(world: World) -> None:
        assert isinstance(world, CentreWorld)
        world.centre.check()
        assert world.centre.disk().foreign == set()
        told = report(world.centre, world.operations[0])
        assert told["findings"] == []
        assert sorted(one["kind"] for one in told["fixed"]) == ["missing grant"] * 2 + ["unexpected grant"] * 3

    found = virtual.run(lambda loop: crash_everywhere(lambda: wrong(fresh()), [right]))
    assert found.boundaries >= 10
    assert set(found.ends) == {(OperationStatus.DONE,)}


def test_what_was_set_right_stays_when_something_else_fails() -> None:
    """The machine of an appliance that runs does not lose its access again."""

    def faults(request: Request) -> Fault | None:
        return Fault.STATUS if request.argv[:3] == ("grant", "volume-2", "node-102") else None

    async def story(loop: virtual.VirtualLoop) -> None:
        world = wrong(MemoryDatabase(clock=loop.now), FakeHosts(faults=faults))
        await world.centre.finish()
        assert world.site.status(world.operations[0]) is OperationStatus.FAILED
        assert world.centre.disk().grants["volume-1"][0] == "node-101"
        assert world.centre.disk().foreign == set()

    virtual.run(story)


def test_a_grant_of_a_volume_in_no_use_goes_behind_the_gate() -> None:
    async def story(centre: Datacentre) -> None:
        centre.disk().grants["volume-1"] = ("node-101", 0, 0)
        assert await ask(centre, "storage.audit", fix=True) == []
        (taken,) = [effect for effect in centre.hosts.effects if effect.argv[0] in ("revoke", "withdraw")]
        assert taken.argv[0] == "revoke"
        assert taken.gate is not None
        centre.check()

    run(story)


def test_findings_are_warnings_in_the_log() -> None:
    async def story(centre: Datacentre) -> None:
        for number in range(25):
            centre.disk().foreign.add((f"/pool/{number}", "x"))
        found = await ask(centre, "storage.audit")
        assert len(found) == 25
        with centre.database.read() as reader:
            told = [one.text for one in reader.find(Event, severity="warning")]
        assert len(told) == 21
        assert told[-1].endswith("5 more, see operation 1")
        assert "unexpected grant, /pool/0: x may write /pool/0: it was made by hand" in " ".join(told)

    run(story)


def test_what_is_under_way_is_not_found_missing() -> None:
    async def story(centre: Datacentre) -> None:
        centre.call("appliance.start", "service1")
        with centre.database.read() as reader:
            assert reader.find(Lease, state=LeaseState.HELD)
        assert await ask(centre, "storage.audit") == []

    run(story)


def test_a_check_finds_what_does_not_belong_and_what_is_gone() -> None:
    async def story(centre: Datacentre) -> None:
        disk = centre.disk()
        disk.things |= {"half-made": "half", "unknown": "whole"}
        del disk.things["volume1"]
        with centre.database.write() as writer:
            for phase in (VolumePhase.CREATING, VolumePhase.REMOVING):
                writer.insert(Volume(name=str(phase), storage_id=1, phase=phase))
        assert await ask(centre, "storage.check") == [
            ("abandoned volume", "it is creating, and no operation works on it any more"),
            ("abandoned volume", "it is removing, and no operation works on it any more"),
            ("volume gone", "it is recorded but not on the storage"),
            ("unknown volume", "it is on the storage but not recorded"),
            ("leftover", "it is no volume: half made, or half removed"),
        ]

    run(story)


def test_a_check_says_nothing_of_leftovers_while_a_volume_is_made() -> None:
    async def story(centre: Datacentre) -> None:
        centre.disk().things["half-made"] = "half"
        centre.hosts.faults = lambda request: Fault.DURING if request.argv[:2] == ("make", "new") else None
        making = centre.call("volume.clone", "volume1", {"name": "new"})
        checking = centre.call("storage.check", "fake1")
        runner = centre.site.runner()
        await runner.start()
        while centre.site.status(checking.id) is not OperationStatus.DONE:
            assert centre.site.status(making.id) in (OperationStatus.RUNNING, OperationStatus.QUEUED)
            await asyncio.sleep(0.05)
        await centre.settle()
        await runner.stop()
        told = report(centre, checking.id)
        assert told["findings"] == []
        assert told["skipped"] == ["leftovers: an operation makes or removes volume new"]

    run(story)


async def abandoned(centre: Datacentre) -> None:
    """A move whose machine never says that it has gone, given up by a human in the end."""
    centre.obeying.halfway = lambda _, order: centre.obeying.dead.add(order.resource_id)
    operation = centre.call("image.move", "image1", {"to_id": "fake2"})
    runner = centre.site.runner()
    await runner.start()
    for _ in range(5):
        centre.obeying.tick()
        await asyncio.sleep(1)
    centre.pipeline.call("operation.cancel", SYSTEM, operation.id, {})
    await centre.settle()
    await runner.stop()
    assert centre.site.status(operation.id) is OperationStatus.ATTENTION
    centre.pipeline.call("operation.abandon", SYSTEM, operation.id, {})


def test_what_an_abandoned_move_left_is_found_and_released() -> None:
    async def story(centre: Datacentre) -> None:
        await abandoned(centre)
        (found,) = await ask(centre, "storage.audit")
        assert found == ("abandoned loan", "operation 1 (image.move) has ended and left it to node-101")
        with centre.database.read() as reader:
            told = [one.text for one in reader.find(Event, severity="warning")]
            volumes = [loan.volume_id for loan in reader.find(Loan)]
            assert reader.get(Resource, 2).desired is Desired.ASSIGNED
        assert any("openqrm volume release 1" in text for text in told)
        with pytest.raises(ConflictError, match="written by operation 1"):
            centre.call("appliance.start", "service1")
        for volume in volumes:
            centre.call("volume.release", volume)
            await centre.finish()
        centre.call("volume.remove", volumes[1])
        await centre.finish()
        assert await ask(centre, "storage.audit") == []
        centre.check()
        with pytest.raises(ConflictError, match="lent to nobody"):
            centre.call("volume.release", volumes[0])

    run(story, storages=2)


def lend(centre: Datacentre, volume: int, machine: str, operation: str = "image.move", **fields: Any) -> None:
    """A loan to read, by records only, whose operation is over."""
    with centre.database.write() as writer:
        resource = writer.one(Resource, name=machine)
        assert resource is not None
        past = writer.insert(Operation(name=operation, status=OperationStatus.ABANDONED))
        writer.insert(Loan(volume_id=volume, resource_id=resource.id, operation_id=past.id, **fields))


def test_what_is_lent_is_compared_too() -> None:
    """A root in memory is filled at every boot: its source stays lent while the appliance runs."""

    async def story(centre: Datacentre) -> None:
        centre.running(1)
        lend(centre, 2, "node-101", "appliance.start", appliance_id=1)
        with centre.database.write() as writer:
            writer.update(writer.find(Lease)[0], held_appliance=1)
        centre.disk().lent.add(("volume-1", "node-102"))
        assert await ask(centre, "storage.audit") == [
            ("unexpected grant", "node-102 may read volume-1: the volume is node-101's, for appliance service1"),
            ("missing grant", "node-101 may not read it, for operation 2 (appliance.start), generation 0"),
        ]
        assert await ask(centre, "storage.audit", fix=True) == []
        assert centre.disk().lent == {("volume-2", "node-101")}
        assert centre.disk().grants["volume-1"][0] == "node-101"

    run(story, appliances=2)


def test_what_was_lent_to_read_and_left_is_released() -> None:
    async def story(centre: Datacentre) -> None:
        lend(centre, 1, "node-101")
        centre.disk().lent.add(("volume-1", "node-101"))
        assert await ask(centre, "storage.audit") == [
            ("abandoned loan", "operation 1 (image.move) has ended and left it to node-101")
        ]
        centre.call("volume.release", 1)
        await centre.finish()
        assert await ask(centre, "storage.audit") == []
        centre.check()

    run(story)


def test_what_still_works_is_not_released() -> None:
    async def story(centre: Datacentre) -> None:
        centre.call("image.move", "image1", {"to_id": "fake2"})
        with pytest.raises(ConflictError, match="used by operation 1"):
            centre.call("volume.release", 1)
        await centre.finish()
        centre.check()

    run(story, storages=2)
