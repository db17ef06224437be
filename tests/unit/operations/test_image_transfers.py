"""What an image is filled from and copied to: set at its creation or later, cleared, refused where it cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.errors import ConflictError, InvalidError, UnsupportedError
from openqrm.domain.resource import Resource
from openqrm.domain.storage import Image, Storage, Volume, VolumePhase
from openqrm.testing.wiring import ADMIN, add_users, pipeline_of

if TYPE_CHECKING:
    from openqrm.operations.pipeline import Pipeline
    from openqrm.store.database import SqlDatabase
    from openqrm.testing.memory import MemoryDatabase

    AnyDatabase = SqlDatabase | MemoryDatabase


def kind(**traits: Any) -> dict[str, Any]:
    usual = {"own_machine": False, "in_memory": False, "start": "root", "secrets": [], "through": ""}
    return {**usual, "capabilities": [], **traits}


TYPES = {
    "nfs": kind(capabilities=["authorize", "lend"]),
    "iscsi": kind(capabilities=["authorize"]),
    "disks": kind(start="disk", capabilities=["authorize"]),
    "local": kind(own_machine=True),
    "memory": kind(in_memory=True),
}


@pytest.fixture
def pipeline(database: AnyDatabase) -> Pipeline:
    """A storage of each type with one image of its name, and `plain` on nfs without one."""
    add_users(database)
    with database.write() as writer:
        host = writer.insert(Resource(name="host", address="10.0.0.2", manual=True))
        for name in TYPES:
            storage = writer.insert(Storage(name=name, type=name, resource_id=host.id))
            volume = writer.insert(Volume(name=name, storage_id=storage.id, phase=VolumePhase.READY))
            writer.insert(Image(name=name, volume_id=volume.id, deployment=f"{name}-root"))
        writer.insert(Volume(name="plain", storage_id=1, phase=VolumePhase.READY))
    deployments = {name: f"{name}-root" for name in TYPES}
    return pipeline_of(database, storage_types=TYPES, deployments=deployments)


def do(pipeline: Pipeline, verb: str, target: str | None, **arguments: Any) -> Any:
    return pipeline.call(f"image.{verb}", ADMIN, target, arguments).record


def update(pipeline: Pipeline, target: str, **arguments: Any) -> Image:
    record = do(pipeline, "update", target, **arguments)
    assert isinstance(record, Image)
    return record


def test_an_image_is_created_with_what_it_is_filled_from(pipeline: Pipeline) -> None:
    made = do(pipeline, "create", None, name="web", volume_id="plain", install_from_id="nfs")
    assert (made.install_from_id, made.install_from_device) == (1, "")
    assert (made.transfer_to_id, made.transfer_to_device) == (None, "")


@pytest.mark.parametrize("nothing", [-1, None])
def test_an_image_is_cleared(pipeline: Pipeline, nothing: int | None) -> None:
    assert update(pipeline, "iscsi", install_from_id="nfs", transfer_to_id="nfs").install_from_id == 1
    after = update(pipeline, "iscsi", install_from_id=nothing)
    assert (after.install_from_id, after.transfer_to_id) == (None, 1), "what is left out stays"
    assert update(pipeline, "iscsi", transfer_to_id=nothing).transfer_to_id is None


@pytest.mark.parametrize("nothing", ["", None])
def test_a_device_is_cleared(pipeline: Pipeline, nothing: str | None) -> None:
    assert update(pipeline, "iscsi", install_from_device="/dev/vda1").install_from_device == "/dev/vda1"
    assert update(pipeline, "iscsi", install_from_device=nothing).install_from_device == ""


def test_renaming_leaves_transfers_alone(pipeline: Pipeline) -> None:
    update(pipeline, "iscsi", install_from_id="nfs", transfer_to_device="/dev/sda2")
    after = update(pipeline, "iscsi", name="other", comment="x")
    assert (after.name, after.install_from_id, after.transfer_to_device) == ("other", 1, "/dev/sda2")


@pytest.mark.parametrize("side", ["install_from", "transfer_to"])
def test_one_source_and_one_destination(pipeline: Pipeline, side: str) -> None:
    with pytest.raises(InvalidError, match="another image or a local device, not both"):
        update(pipeline, "iscsi", **{f"{side}_id": "nfs", f"{side}_device": "/dev/sda1"})
    update(pipeline, "iscsi", **{f"{side}_id": "nfs"})
    with pytest.raises(InvalidError, match="not both"):
        update(pipeline, "iscsi", **{f"{side}_device": "/dev/sda1"})
    after = update(pipeline, "iscsi", **{f"{side}_device": "/dev/sda1", f"{side}_id": -1})
    assert getattr(after, f"{side}_device") == "/dev/sda1"


@pytest.mark.parametrize("side", ["install_from_id", "transfer_to_id"])
def test_not_itself_and_not_nothing(pipeline: Pipeline, side: str) -> None:
    with pytest.raises(InvalidError, match="itself"):
        update(pipeline, "nfs", **{side: "nfs"})
    with pytest.raises(InvalidError, match="no image 77"):
        update(pipeline, "nfs", **{side: 77})
    with pytest.raises(InvalidError, match="device"):
        update(pipeline, "nfs", install_from_device="sda1")


def test_only_a_storage_that_lends_fills_others(pipeline: Pipeline) -> None:
    with pytest.raises(UnsupportedError, match=r"storage iscsi \(iscsi\) cannot lend") as caught:
        update(pipeline, "nfs", install_from_id="iscsi")
    assert caught.value.field == "install_from_id"


@pytest.mark.parametrize("other", ["disks", "local", "memory"])
def test_only_what_any_machine_can_write_is_copied_to(pipeline: Pipeline, other: str) -> None:
    with pytest.raises(UnsupportedError, match="other machines cannot write"):
        update(pipeline, "nfs", transfer_to_id=other)
    assert update(pipeline, "nfs", transfer_to_id="iscsi").transfer_to_id == 2


def test_whole_disks_take_no_files(pipeline: Pipeline) -> None:
    for change in ({"install_from_id": "nfs"}, {"transfer_to_device": "/dev/sda1"}):
        with pytest.raises(UnsupportedError, match="whole disks"):
            update(pipeline, "disks", **change)
    assert update(pipeline, "disks", install_from_id=-1, version="2").version == "2"


@pytest.mark.parametrize("side", ["install_from_id", "transfer_to_id"])
def test_what_others_point_to_stays(pipeline: Pipeline, side: str) -> None:
    update(pipeline, "iscsi", **{side: "nfs"})
    with pytest.raises(ConflictError, match="image nfs is used by image iscsi"):
        do(pipeline, "remove", "nfs")
    update(pipeline, "iscsi", **{side: -1})
    do(pipeline, "remove", "nfs")
