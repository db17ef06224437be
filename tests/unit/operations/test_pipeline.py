"""The pipeline on each database: who may, what fits, what is remembered, what is queued."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    NoCapacityError,
    NotFoundError,
    UnsupportedError,
)
from openqrm.domain.event import Event
from openqrm.domain.kernel import Kernel
from openqrm.domain.operation import Operation, OperationStatus, StepRecord, StepStatus
from openqrm.domain.plugin_state import PluginPhase, PluginState
from openqrm.domain.resource import Resource
from openqrm.domain.user import SYSTEM, User
from openqrm.operations.arguments import FieldsError
from openqrm.operations.pipeline import Pipeline, Request
from openqrm.operations.versions import ChangedError, version_of
from openqrm.plugin_api.operation import Operation as Declaration
from openqrm.plugin_api.plugin import Family, Plugin
from openqrm.testing.wiring import ADMIN, OPERATOR, VIEWER, add_users, pipeline_of

if TYPE_CHECKING:
    from openqrm.domain.model import Record
    from openqrm.store.database import SqlDatabase
    from openqrm.testing.memory import MemoryDatabase

BOX = {"mac": "52-54-00-AA-00-01", "address": "10.0.0.5", "name": "box"}


@pytest.fixture
def pipeline(database: SqlDatabase | MemoryDatabase) -> Pipeline:
    add_users(database)
    return pipeline_of(database)


def found(pipeline: Pipeline, kind: type[Any], **conditions: Any) -> list[Any]:
    with pipeline.database.read() as reader:
        return list(reader.find(kind, **conditions))


def made(pipeline: Pipeline, name: str, /, **arguments: Any) -> Record:
    record = pipeline.call(name, ADMIN, None, arguments).record
    assert record is not None
    return record


def test_a_closed_box_is_made_by_hand_and_audited(pipeline: Pipeline) -> None:
    outcome = pipeline.call("resource.create", OPERATOR, None, BOX)
    assert outcome.status == "done"
    resource = outcome.record
    assert isinstance(resource, Resource)
    assert (resource.mac, resource.manual, resource.phase) == ("52:54:00:aa:00:01", True, "unknown")
    event = found(pipeline, Event, actor="olga")[-1]
    assert (event.text, event.subject_kind, event.subject_id) == ("resource.create box", "resource", resource.id)
    announced = found(pipeline, Operation, name="resource.announce")
    assert [each.target_id for each in announced] == [resource.id]


def test_who_may(pipeline: Pipeline) -> None:
    made(pipeline, "resource.create", **BOX)
    with pytest.raises(ForbiddenError, match="victor is viewer"):
        pipeline.call("resource.update", VIEWER, "box", {"group": "x"})
    with pytest.raises(ForbiddenError):
        pipeline.call("resource.update", VIEWER, "nothing", {"group": "x"})
    with pytest.raises(ForbiddenError):
        pipeline.call("user.create", OPERATOR, None, {"name": "eve", "password": "correct horse"})
    with pytest.raises(NotFoundError):
        pipeline.call("user.set-password", OPERATOR, "admin", {"password": "correct horse"})
    assert pipeline.call("user.set-password", OPERATOR, "olga", {"password": "correct horse"}).status == "done"


def test_every_wrong_argument_is_named_and_nothing_is_stored(pipeline: Pipeline) -> None:
    with pytest.raises(FieldsError) as caught:
        pipeline.call("resource.create", ADMIN, None, {"mac": "zz", "address": "nowhere", "colour": "red"})
    assert caught.value.field == "mac"
    assert [error["field"] for error in caught.value.errors] == ["mac", "address", "colour"]
    assert caught.value.remedy
    assert not found(pipeline, Resource)
    assert not found(pipeline, Event)


@pytest.mark.parametrize(
    "arguments",
    [
        {**BOX, "group": "a\x00b"},
        {**BOX, "group": "\ud800"},
        {**BOX, "name": "x" * 10_000_000},
        {**BOX, "name": "Not A Name"},
        {**BOX, "address": 7},
        {**BOX, "mac": "01:00:5e:00:00:01"},
        {**BOX, "group": {"type": "secret", "key": "session-signing-key"}},
        {**BOX, "group": float("inf")},
    ],
)
def test_what_no_database_should_see_is_refused(pipeline: Pipeline, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidError) as caught:
        pipeline.call("resource.create", ADMIN, None, arguments)
    assert caught.value.field
    assert len(str(caught.value)) < 1000


def test_targets_by_id_and_by_name(pipeline: Pipeline) -> None:
    box = made(pipeline, "resource.create", **BOX)
    for which in (box.id, str(box.id), "box", "52:54:00:aa:00:01", "52-54-00-AA-00-01"):
        assert pipeline.call("resource.update", ADMIN, which, {"group": "g"}).record
    for which in ("nothing", 999, "999", "9" * 30, "a\x00b", ""):
        with pytest.raises(NotFoundError):
            pipeline.call("resource.update", ADMIN, which, {"group": "g"})


def test_an_update_changes_what_was_given_alone(pipeline: Pipeline) -> None:
    made(pipeline, "resource.create", **BOX, group="g")
    changed = pipeline.call("resource.update", ADMIN, "box", {"name": "crate"}).record
    assert isinstance(changed, Resource)
    assert (changed.name, changed.group, changed.address) == ("crate", "g", "10.0.0.5")
    cleared = pipeline.call("resource.update", ADMIN, "crate", {"address": None}).record
    assert isinstance(cleared, Resource)
    assert cleared.address is None
    with pytest.raises(InvalidError, match="mac"):
        pipeline.call("resource.update", ADMIN, "crate", {"mac": "52:54:00:00:00:09"})


def test_duplicates_conflict_by_name(pipeline: Pipeline) -> None:
    made(pipeline, "resource.create", **BOX)
    with pytest.raises(ConflictError) as caught:
        pipeline.call("resource.create", ADMIN, None, BOX | {"mac": "52:54:00:aa:00:02", "address": "10.0.0.6"})
    assert caught.value.field == "name"


def test_a_key_does_a_call_once(pipeline: Pipeline) -> None:
    first = pipeline.call("resource.create", ADMIN, None, BOX, idempotency_key="k1")
    again = pipeline.call("resource.create", ADMIN, None, BOX | {"mac": "5254.00aa.0001"}, idempotency_key="k1")
    assert again.record == first.record
    assert len(found(pipeline, Resource)) == 1
    with pytest.raises(ConflictError, match="idempotency key"):
        pipeline.call("resource.create", ADMIN, None, BOX | {"group": "g"}, idempotency_key="k1")
    with pytest.raises(ConflictError, match="idempotency key"):
        pipeline.call("resource.update", ADMIN, "box", {"group": "g"}, idempotency_key="k1")
    other = pipeline.call("resource.update", OPERATOR, "box", {"group": "g"}, idempotency_key="k1")
    assert other.status == "done"


def test_a_key_answers_even_when_the_target_is_gone(pipeline: Pipeline) -> None:
    made(pipeline, "network.create", name="lan", cidr="10.0.0.0/24")
    assert pipeline.call("network.remove", ADMIN, "lan", {}, idempotency_key="k").record is None
    again = pipeline.call("network.remove", ADMIN, "lan", {}, idempotency_key="k")
    assert (again.status, again.record) == ("done", None)
    with pytest.raises(NotFoundError):
        pipeline.call("network.remove", ADMIN, "lan", {})


def test_a_queued_call_under_a_key_is_queued_once(pipeline: Pipeline) -> None:
    made(pipeline, "resource.create", **BOX)
    first = pipeline.call("resource.remove", ADMIN, "box", {}, idempotency_key="k")
    again = pipeline.call("resource.remove", ADMIN, "box", {}, idempotency_key="k")
    assert first.operation
    assert again.operation
    assert first.operation.id == again.operation.id
    assert len(found(pipeline, Operation, name="resource.remove")) == 1


def test_a_key_survives_a_race(pipeline: Pipeline) -> None:
    outcomes: list[Any] = []
    barrier = threading.Barrier(4)

    def call() -> None:
        barrier.wait()
        outcomes.append(pipeline.call("resource.create", ADMIN, None, BOX, idempotency_key="k"))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({outcome.record.id for outcome in outcomes}) == 1
    assert len(outcomes) == 4


def test_a_version_that_is_gone_is_refused(pipeline: Pipeline) -> None:
    box = made(pipeline, "resource.create", **BOX)
    seen = version_of(box)
    pipeline.call("resource.update", ADMIN, "box", {"group": "g"}, versions=(seen,))
    with pytest.raises(ChangedError):
        pipeline.call("resource.update", ADMIN, "box", {"group": "h"}, versions=(seen,))
    assert pipeline.call("resource.update", ADMIN, "box", {"group": "h"}, versions=("*",)).record


def test_a_state_in_the_way_is_named(pipeline: Pipeline) -> None:
    made(pipeline, "resource.create", **BOX)
    with pytest.raises(ConflictError, match="resource box has phase unknown") as caught:
        pipeline.call("resource.reboot", ADMIN, "box", {})
    assert caught.value.remedy == "resource.reboot is possible when it is active or idle"


def test_a_dry_run_stores_nothing(pipeline: Pipeline) -> None:
    outcome = pipeline.call("resource.create", ADMIN, None, BOX, dry_run=True, idempotency_key="k")
    assert outcome.status == "planned"
    assert isinstance(outcome.record, Resource)
    planned = pipeline.call("kernel.add", ADMIN, None, {"name": "k", "version": "6.1"}, dry_run=True)
    assert [step["name"] for step in planned.steps or ()] == ["record", "plan-build"]
    for kind in (Resource, Operation, Event, Kernel):
        assert not found(pipeline, kind)
    with pytest.raises(InvalidError):
        pipeline.call("resource.create", ADMIN, None, {}, dry_run=True)


def test_a_planned_operation_is_admitted_and_queued_at_once(pipeline: Pipeline) -> None:
    outcome = pipeline.call("kernel.add", OPERATOR, None, {"name": "k", "version": "6.1"})
    assert outcome.status == "accepted"
    assert outcome.operation
    assert (outcome.operation.status, outcome.operation.actor) == (OperationStatus.QUEUED, "olga")
    assert [kernel.name for kernel in found(pipeline, Kernel)] == ["k"]
    steps = found(pipeline, StepRecord, operation_id=outcome.operation.id, order="position")
    assert [(step.kind, step.status) for step in steps] == [
        ("change", StepStatus.DONE),
        ("planning", StepStatus.PENDING),
    ]
    with pytest.raises(ConflictError, match="kernel"):
        pipeline.call("kernel.add", OPERATOR, None, {"name": "k", "version": "6.1"})
    assert len(found(pipeline, Operation)) == 1


def test_a_conflict_in_the_admission_may_be_waited_for(pipeline: Pipeline) -> None:
    prepare_appliance(pipeline)
    with pytest.raises(NoCapacityError):
        pipeline.call("appliance.start", ADMIN, "web", {})
    assert not found(pipeline, Operation, name="appliance.start")
    outcome = pipeline.call("appliance.start", ADMIN, "web", {}, wait=True)
    assert outcome.operation
    steps = found(pipeline, StepRecord, operation_id=outcome.operation.id, order="position")
    assert [(step.name, step.status) for step in steps][:2] == [
        ("starting", StepStatus.PENDING),
        ("lease", StepStatus.PENDING),
    ]


def prepare_appliance(pipeline: Pipeline) -> None:
    """An appliance with everything but a machine."""
    from openqrm.domain.appliance import Appliance  # noqa: PLC0415  # only here
    from openqrm.domain.storage import Image, Storage, Volume, VolumePhase  # noqa: PLC0415  # only here

    with pipeline.database.write() as writer:
        host = writer.insert(Resource(name="host", mac="52:54:00:00:00:10"))
        storage = writer.insert(Storage(name="nfs1", type="nfs", resource_id=host.id))
        volume = writer.insert(Volume(name="v", storage_id=storage.id, phase=VolumePhase.READY))
        image = writer.insert(Image(name="web", volume_id=volume.id))
        writer.insert(Kernel(name="k", version="6.1", default=True, ready=True))
        writer.insert(Appliance(name="web", image_id=image.id))


def test_secrets_are_masked_wherever_a_call_is_written_down(pipeline: Pipeline) -> None:
    pipeline.call("user.create", ADMIN, None, {"name": "eve", "password": "correct horse"}, idempotency_key="k")
    rows = [*found(pipeline, Operation), *found(pipeline, Event)]
    assert rows
    assert "correct horse" not in repr(rows)
    assert "••••" in repr(rows)
    again = pipeline.call("user.create", ADMIN, None, {"name": "eve", "password": "correct horse"}, idempotency_key="k")
    assert isinstance(again.record, User)
    assert again.record.password_hash == ""


def test_internal_operations_are_for_the_controller_alone(pipeline: Pipeline) -> None:
    box = made(pipeline, "resource.create", **BOX)
    with pytest.raises(NotFoundError):
        pipeline.call("resource.announce", ADMIN, box.id, {})
    with pipeline.database.write() as writer:
        assert pipeline.within(writer, Request("resource.announce", SYSTEM, box.id)).operation


def test_operations_of_a_disabled_plugin_are_refused(database: SqlDatabase | MemoryDatabase) -> None:
    poke = Declaration(
        name="user.poke", title="Poke", summary="Poke", target=User, act="openqrm.operations.core_user:update"
    )
    pipeline = pipeline_of(database, [Plugin("toy", Family.OTHER, "Toy", "A toy", "toy", operations=(poke,))])
    add_users(database)
    with pytest.raises(UnsupportedError) as caught:
        pipeline.call("user.poke", ADMIN, "olga", {})
    assert caught.value.remedy == "openqrm plugin init toy"
    with database.write() as writer:
        writer.insert(PluginState(name="toy", family="other", state=PluginPhase.ENABLED))
    assert pipeline.call("user.poke", ADMIN, "olga", {}).status == "done"


def test_a_finished_operation_is_run_again(pipeline: Pipeline) -> None:
    first = pipeline.call("kernel.add", OPERATOR, None, {"name": "k", "version": "6.1"}).operation
    assert first
    with pytest.raises(ConflictError, match="queued"):
        pipeline.call("operation.rerun", OPERATOR, first.id, {})
    with pipeline.database.write() as writer:
        writer.update(writer.get(Operation, first.id), status=OperationStatus.FAILED)
        writer.delete(Kernel, found(pipeline, Kernel)[0].id)
    again = pipeline.call("operation.rerun", ADMIN, first.id, {})
    assert again.status == "accepted"
    assert again.operation
    assert (again.operation.name, again.operation.rerun_of) == ("kernel.add", first.id)
    assert again.operation.arguments == first.arguments


def test_a_queued_operation_is_cancelled(pipeline: Pipeline) -> None:
    queued = pipeline.call("kernel.add", OPERATOR, None, {"name": "k", "version": "6.1"}).operation
    assert queued
    pipeline.call("operation.cancel", OPERATOR, queued.id, {})
    assert found(pipeline, Operation, id=queued.id)[0].cancel_requested
    with pytest.raises(ConflictError, match="has status queued"):
        pipeline.call("operation.resume", OPERATOR, queued.id, {})
    with pytest.raises(ForbiddenError):
        pipeline.call("operation.abandon", OPERATOR, queued.id, {})
