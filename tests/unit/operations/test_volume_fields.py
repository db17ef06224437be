"""What describes a volume is said when it is made, in whichever way, and later; what is the controller's never."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.errors import InvalidError
from openqrm.domain.resource import Desired, Health, Phase, Resource
from openqrm.domain.storage import Image, Storage, Volume, VolumePhase
from openqrm.testing.wiring import ADMIN, add_users, pipeline_of

if TYPE_CHECKING:
    from openqrm.operations.pipeline import Pipeline
    from openqrm.store.database import SqlDatabase
    from openqrm.testing.memory import MemoryDatabase

    AnyDatabase = SqlDatabase | MemoryDatabase


def kind(**traits: Any) -> dict[str, Any]:
    usual = {"own_machine": False, "in_memory": False, "start": "root", "secrets": [], "through": ""}
    return {**usual, "capabilities": ["fill", "clone", "snapshot", "authorize"], **traits}


TYPES = {"nfs": kind(), "iscsi": kind(), "disks": kind(start="disk")}
MADE: dict[str, tuple[str | None, dict[str, Any]]] = {
    "create": (None, {"storage_id": "nfs", "size_mb": 7}),
    "import": (None, {"storage_id": "nfs", "archive": "golden.tar"}),
    "clone": ("golden", {}),
    "snapshot": ("golden", {"size_mb": 5}),
    "grab": (None, {"storage_id": "disks", "resource_id": "node1"}),
}


@pytest.fixture
def pipeline(database: AnyDatabase) -> Pipeline:
    """A storage of each type, `golden` with an image on nfs, an idle machine."""
    add_users(database)
    with database.write() as writer:
        host = writer.insert(Resource(name="host", address="10.0.0.2", manual=True))
        idle = {"phase": Phase.IDLE, "desired": Desired.IDLE, "health": Health.OK}
        writer.insert(Resource(name="node1", mac="52:54:00:00:00:01", address="10.0.0.11", **idle))
        for name in TYPES:
            writer.insert(Storage(name=name, type=name, resource_id=host.id))
        golden = {"phase": VolumePhase.READY, "size_mb": 100, "comment": "of the ninth month"}
        volume = writer.insert(Volume(name="golden", storage_id=1, **golden))
        writer.insert(Image(name="golden", volume_id=volume.id, deployment="nfs-root"))
    return pipeline_of(database, storage_types=TYPES, deployments={name: f"{name}-root" for name in TYPES})


def volume(pipeline: Pipeline, **which: Any) -> Volume:
    with pipeline.database.read() as reader:
        (found,) = reader.find(Volume, **which)
    return found


@pytest.mark.parametrize("verb", MADE)
def test_every_way_to_make_a_volume_takes_what_describes_it(pipeline: Pipeline, verb: str) -> None:
    target, further = MADE[verb]
    pipeline.call(f"volume.{verb}", ADMIN, target, {"name": "new", "comment": "for tests", **further})
    assert volume(pipeline, name="new").comment == "for tests"


@pytest.mark.parametrize("verb", MADE)
def test_no_way_to_make_a_volume_takes_what_is_the_controllers(pipeline: Pipeline, verb: str) -> None:
    target, further = MADE[verb]
    for field, value in (("root_device", "/dev/x"), ("phase", "ready"), ("generation", 9), ("parent_id", 1)):
        with pytest.raises(InvalidError) as caught:
            pipeline.call(f"volume.{verb}", ADMIN, target, {"name": "new", field: value, **further})
        assert caught.value.field == field


def test_a_copy_is_on_its_sources_storage_and_described_anew(pipeline: Pipeline) -> None:
    for verb, size_mb in (("clone", 100), ("snapshot", 0)):
        pipeline.call(f"volume.{verb}", ADMIN, "golden", {"name": verb})
        made = volume(pipeline, name=verb)
        assert (made.storage_id, made.parent_id, made.size_mb, made.comment) == (1, 1, size_mb, "")
    for field in ("storage_id", "size_mb"):
        with pytest.raises(InvalidError, match=field):
            pipeline.call("volume.clone", ADMIN, "golden", {"name": "other", field: 2})


def test_what_describes_a_volume_goes_with_its_image(pipeline: Pipeline) -> None:
    pipeline.call("image.move", ADMIN, "golden", {"to_id": "iscsi"})
    assert volume(pipeline, name="golden", storage_id=2).comment == "of the ninth month"


def test_what_describes_a_volume_can_change(pipeline: Pipeline) -> None:
    before = volume(pipeline, name="golden")
    changed = pipeline.call("volume.update", ADMIN, "golden", {"comment": "x" * 200}).record
    assert isinstance(changed, Volume)
    assert changed.model_copy(update={"comment": before.comment, "updated_at": before.updated_at}) == before
    assert changed.comment == "x" * 200
    pipeline.call("volume.update", ADMIN, "golden", {})
    assert volume(pipeline, name="golden").comment == "x" * 200
    for wrong in ("x" * 201, None):
        with pytest.raises(InvalidError, match="comment"):
            pipeline.call("volume.update", ADMIN, "golden", {"comment": wrong})


@pytest.mark.parametrize("field", ["name", "storage_id", "size_mb", "root_device", "phase", "generation", "parent_id"])
def test_nothing_else_of_a_volume_can_change_so(pipeline: Pipeline, field: str) -> None:
    """Its name is its place on the host, and its size the pool's to change."""
    with pytest.raises(InvalidError) as caught:
        pipeline.call("volume.update", ADMIN, "golden", {field: getattr(volume(pipeline, name="golden"), field)})
    assert caught.value.field == field
