"""What operations exclude others from: what a start fills and is filled from, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.appliance import Appliance
from openqrm.domain.kernel import Kernel
from openqrm.domain.lease import Loan
from openqrm.domain.operation import Operation, OperationTarget
from openqrm.domain.resource import Desired, Health, Phase, Resource
from openqrm.domain.storage import Image, Storage, Volume, VolumePhase
from openqrm.engine.journal import RecordJournal
from openqrm.testing.wiring import ADMIN, add_users, pipeline_of

if TYPE_CHECKING:
    from openqrm.operations.pipeline import Pipeline
    from openqrm.plugin_api.records import Writer
    from openqrm.store.database import SqlDatabase
    from openqrm.testing.memory import MemoryDatabase

    AnyDatabase = SqlDatabase | MemoryDatabase

KIND = {"own_machine": False, "in_memory": False, "start": "root", "secrets": [], "through": ""}
TYPES = {name: KIND | {"capabilities": ["authorize", "lend", "clone"]} for name in ("golden", "vault", "work")}


def _image(writer: Writer, storage: Storage, name: str, **fields: Any) -> Image:
    volume = writer.insert(Volume(name=name, storage_id=storage.id, phase=VolumePhase.READY, size_mb=1))
    return writer.insert(Image(name=name, volume_id=volume.id, deployment=f"{storage.name}-root", **fields))


@pytest.fixture
def pipeline(database: AnyDatabase) -> Pipeline:
    """Appliances `one` and `two` on storage `work`, filled from `golden`; `one` is transferred to `vault`."""
    add_users(database)
    with database.write() as writer:
        host = writer.insert(Resource(name="host", address="10.0.0.2", manual=True))
        idle = {"phase": Phase.IDLE, "desired": Desired.IDLE, "health": Health.OK, "memory_mb": 1024, "cpus": 1}
        for number in range(2):
            mac, address = f"52:54:00:00:00:0{number}", f"10.0.0.1{number}"
            writer.insert(Resource(name=f"node{number}", mac=mac, address=address, **idle))
        storages = {name: writer.insert(Storage(name=name, type=name, resource_id=host.id)) for name in TYPES}
        golden = _image(writer, storages["golden"], "golden")
        vault = _image(writer, storages["vault"], "vault")
        kernel = writer.insert(Kernel(name="six", version="6.1", default=True, ready=True))
        for name, to in (("one", vault.id), ("two", None)):
            image = _image(writer, storages["work"], name, install_from_id=golden.id, transfer_to_id=to)
            writer.insert(Appliance(name=name, image_id=image.id, kernel_id=kernel.id))
    return pipeline_of(database, storage_types=TYPES, deployments={name: f"{name}-root" for name in TYPES})


def called(pipeline: Pipeline, verb: str, target: str, **arguments: Any) -> int:
    operation = pipeline.call(verb, ADMIN, target, arguments).operation
    assert operation is not None
    return operation.id


def runnable(pipeline: Pipeline) -> list[int]:
    """Who need not wait for another."""
    journal = RecordJournal(pipeline.database)
    with pipeline.database.read() as reader:
        return [one.id for one in journal.candidates(reader, 10, dict.fromkeys(("change", "planning"), 9))]


@pytest.mark.parametrize("storage", ["golden", "vault", "work"])
def test_access_is_set_right_where_nothing_is_granted_just_now(pipeline: Pipeline, storage: str) -> None:
    started = called(pipeline, "appliance.start", "one")
    looks = called(pipeline, "storage.audit", storage)
    assert runnable(pipeline) == [started, looks]
    called(pipeline, "storage.audit", {"golden": "vault", "vault": "work", "work": "golden"}[storage], fix=True)
    assert runnable(pipeline) == [started, looks], "one that sets right waits, whichever storage it is about"


@pytest.mark.parametrize("storage", ["golden", "vault", "work"])
def test_nothing_is_granted_where_access_is_set_right(pipeline: Pipeline, storage: str) -> None:
    audit = called(pipeline, "storage.audit", storage, fix=True)
    called(pipeline, "appliance.start", "one")
    assert runnable(pipeline) == [audit]


def test_many_are_filled_from_one_image_at_the_same_time(pipeline: Pipeline) -> None:
    first, second = (called(pipeline, "appliance.start", name) for name in ("one", "two"))
    clone = called(pipeline, "volume.clone", "golden", name="other")
    assert runnable(pipeline) == [first, second, clone]


def test_what_is_lent_until_the_stop_is_shared_by_the_stop(pipeline: Pipeline) -> None:
    """Whatever the image names meanwhile."""
    started = called(pipeline, "appliance.start", "one")
    with pipeline.database.write() as writer:
        for target in writer.find(OperationTarget):
            writer.delete(OperationTarget, target.id)
        writer.update(writer.get(Operation, started), status="abandoned")
        writer.update(writer.get(Appliance, 1), phase="stopped")
        writer.update(writer.find(Image, name="one")[0], install_from_id=None, transfer_to_id=None)
        read, written = sorted(writer.find(Loan), key=lambda loan: loan.generation)
    release = called(pipeline, "appliance.release", "one")
    with pipeline.database.read() as reader:
        found = {each.target: each.shared for each in reader.find(OperationTarget, operation_id=release)}
    assert found[f"volume-{written.volume_id}"] is False
    assert found[f"volume-{read.volume_id}-readers"] is True
