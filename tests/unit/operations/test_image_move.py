"""Which images move where, by which machine, and what else is refused in the moment of the call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.errors import ConflictError, InvalidError, UnsupportedError
from openqrm.domain.lease import Loan
from openqrm.domain.resource import Desired, Health, Phase, Resource
from openqrm.domain.storage import Image, Storage, Volume, VolumePhase
from openqrm.plugin_api.steps import Change
from openqrm.testing.wiring import ADMIN, add_users, pipeline_of

if TYPE_CHECKING:
    from openqrm.domain.operation import Operation
    from openqrm.operations.pipeline import Pipeline
    from openqrm.store.database import SqlDatabase
    from openqrm.testing.memory import MemoryDatabase

    AnyDatabase = SqlDatabase | MemoryDatabase


def kind(**traits: Any) -> dict[str, Any]:
    usual = {"own_machine": False, "in_memory": False, "start": "root", "secrets": [], "through": ""}
    return {**usual, "capabilities": ["authorize"], **traits}


TYPES = {
    "nfs": kind(capabilities=["authorize", "lend"]),
    "iscsi": kind(),
    "disks": kind(start="disk"),
    "san": kind(start="san"),
    "memory": kind(in_memory=True),
    "local": kind(own_machine=True),
}
MACHINES = ("node1", "node2")


@pytest.fixture
def pipeline(database: AnyDatabase) -> Pipeline:
    """A storage and an image of each type, `local2` in another machine, two idle machines."""
    add_users(database)
    with database.write() as writer:
        host = writer.insert(Resource(name="host", address="10.0.0.2", manual=True))
        idle = {"phase": Phase.IDLE, "desired": Desired.IDLE, "health": Health.OK}
        machines = [
            writer.insert(Resource(name=name, mac=f"52:54:00:00:00:0{number}", address=f"10.0.0.1{number}", **idle))
            for number, name in enumerate(MACHINES)
        ]
        for name in (*TYPES, "local2"):
            own = {"local": machines[0].id, "local2": machines[1].id}.get(name, host.id)
            storage = writer.insert(Storage(name=name, type=name.removesuffix("2"), resource_id=own))
            volume = writer.insert(
                Volume(name=name, storage_id=storage.id, phase=VolumePhase.READY, size_mb=100, generation=7)
            )
            writer.insert(Image(name=name, volume_id=volume.id, deployment=f"{name}-root"))
    return pipeline_of(database, storage_types=TYPES, deployments={name: f"{name}-root" for name in TYPES})


def move(pipeline: Pipeline, image: str, to: str | int, **arguments: Any) -> Operation:
    operation = pipeline.call("image.move", ADMIN, image, {"to_id": to, **arguments}).operation
    assert operation is not None
    return operation


@pytest.mark.parametrize(
    ("image", "to", "says"),
    [
        ("memory", "nfs", "the memory of machines"),
        ("nfs", "memory", "the memory of machines"),
        ("disks", "nfs", "whole disks"),
        ("nfs", "disks", "whole disks"),
        ("nfs", "san", "whole disks"),
        ("local", "local2", "two machines"),
    ],
)
def test_what_can_never_move(pipeline: Pipeline, image: str, to: str, says: str) -> None:
    with pytest.raises(UnsupportedError, match=says) as caught:
        move(pipeline, image, to)
    assert caught.value.field == "to_id"


@pytest.mark.parametrize(("field", "to", "given"), [("to_id", 77, {}), ("resource_id", "iscsi", {"resource_id": 77})])
def test_what_is_not_there_is_a_wrong_argument(
    pipeline: Pipeline, field: str, to: str | int, given: dict[str, int]
) -> None:
    with pytest.raises(InvalidError, match="77") as caught:
        move(pipeline, "nfs", to, **given)
    assert caught.value.field == field


def test_a_volume_that_is_not_ready_does_not_move(pipeline: Pipeline) -> None:
    with pipeline.database.write() as writer:
        writer.update(writer.get(Volume, 1), phase=VolumePhase.REMOVING)
    with pytest.raises(ConflictError, match="volume nfs is removing"):
        move(pipeline, "nfs", "iscsi")


def test_to_where_it_is_already(pipeline: Pipeline) -> None:
    with pytest.raises(InvalidError, match="is on storage nfs already") as caught:
        move(pipeline, "nfs", "nfs")
    assert "volume clone nfs" in str(caught.value.remedy)


def test_images_that_are_installed_from_it_keep_it_where_it_can_be_lent(pipeline: Pipeline) -> None:
    pipeline.call("image.update", ADMIN, "iscsi", {"install_from_id": "nfs"})
    with pytest.raises(ConflictError, match="image iscsi is installed from nfs"):
        move(pipeline, "nfs", "local")


@pytest.mark.parametrize(("image", "to", "machine"), [("local", "nfs", "node1"), ("nfs", "local2", "node2")])
def test_what_is_in_a_machine_is_copied_by_that_machine(pipeline: Pipeline, image: str, to: str, machine: str) -> None:
    other = next(name for name in MACHINES if name != machine)
    with pytest.raises(InvalidError, match="only the machine that a storage is in") as caught:
        move(pipeline, image, to, resource_id=other)
    assert caught.value.field == "resource_id"
    move(pipeline, image, to)
    with pipeline.database.read() as reader:
        assert {reader.get(Resource, loan.resource_id).name for loan in reader.find(Loan)} == {machine}


def test_machine_and_volumes_are_claimed_and_generations_go_on(pipeline: Pipeline) -> None:
    operation = move(pipeline, "nfs", "iscsi", name="copy")
    with pipeline.database.read() as reader:
        new = reader.one(Volume, name="copy")
        assert new is not None
        assert (new.phase, new.size_mb, new.generation) == (VolumePhase.CREATING, 100, 8)
        loans = reader.find(Loan, operation_id=operation.id)
        assert [(loan.volume_id, loan.generation) for loan in loans] == [(1, 8), (new.id, 8)]
        worker = reader.get(Resource, loans[0].resource_id)
        assert (worker.phase, worker.desired) == (Phase.IDLE, Desired.ASSIGNED)


@pytest.mark.parametrize(("given", "wanted"), [({}, 100), ({"size_mb": 0}, 0), ({"size_mb": 250}, 250)])
def test_the_size_is_the_old_one_unless_said_otherwise(pipeline: Pipeline, given: dict[str, int], wanted: int) -> None:
    move(pipeline, "nfs", "iscsi", **given)
    with pipeline.database.read() as reader:
        assert [one.size_mb for one in reader.find(Volume, name="nfs")] == [100, wanted]


def test_a_name_that_is_taken_leaves_no_trace(pipeline: Pipeline) -> None:
    with pytest.raises(ConflictError, match="volume"):
        move(pipeline, "nfs", "iscsi", name="iscsi")
    with pipeline.database.read() as reader:
        assert not reader.find(Loan)
        assert not reader.find(Resource, desired=Desired.ASSIGNED)


def test_a_machine_that_is_not_heard_or_not_free_copies_nothing(pipeline: Pipeline) -> None:
    with pipeline.database.write() as writer:
        for machine in writer.find(Resource, manual=False):
            writer.update(machine, health=Health.LOST)
    with pytest.raises(ConflictError, match="no machine is idle to copy with"):
        move(pipeline, "nfs", "iscsi")
    with pytest.raises(ConflictError, match="node1 is not heard"):
        move(pipeline, "nfs", "iscsi", resource_id="node1")
    with pytest.raises(ConflictError, match="host is new"):
        move(pipeline, "nfs", "iscsi", resource_id="host")


def test_a_dry_run_shows_the_claims_and_takes_nothing(pipeline: Pipeline) -> None:
    steps = pipeline.call("image.move", ADMIN, "nfs", {"to_id": "iscsi"}, dry_run=True).steps
    assert steps is not None
    assert [step["name"] for step in steps if step["kind"] == Change.model_fields["kind"].default] == [
        "record",
        "worker",
        "borrow-source",
        "borrow-target",
    ]
    with pipeline.database.read() as reader:
        assert not reader.find(Loan)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("volume.resize", {"size_mb": 200}),
        ("volume.snapshot", {"name": "x"}),
        ("volume.clone", {"name": "x"}),
    ],
)
def test_what_a_type_cannot_is_refused_at_once(pipeline: Pipeline, name: str, arguments: dict[str, Any]) -> None:
    verb = name.partition(".")[2]
    with pytest.raises(UnsupportedError, match=f"cannot {verb}"):
        pipeline.call(name, ADMIN, "nfs", arguments)
    with pipeline.database.read() as reader:
        assert not reader.find(Loan)
        assert reader.count(Volume, name="x") == 0


@pytest.mark.parametrize("size", [0, -5, 2**40 + 1])
def test_sizes_have_limits(pipeline: Pipeline, size: int) -> None:
    with pytest.raises(InvalidError, match="size_mb"):
        pipeline.call("volume.resize", ADMIN, "nfs", {"size_mb": size})
