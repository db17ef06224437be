"""Loans: to read or to write, never beside an appliance that may write the volume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.appliance import Appliance
from openqrm.domain.errors import ConflictError
from openqrm.domain.lease import Lease, LeaseState, Loan
from openqrm.domain.operation import Operation, OperationStatus
from openqrm.domain.resource import Phase, Resource
from openqrm.domain.storage import Image, Storage, Volume, VolumePhase
from openqrm.operations import depending, leases, loans
from openqrm.operations.core_orders import refuse_used as refuse_used_resource
from openqrm.plugin_api.changes import ChangeCall

if TYPE_CHECKING:
    from openqrm.plugin_api.records import Writer
    from openqrm.store.database import SqlDatabase
    from openqrm.testing.memory import MemoryDatabase

    AnyDatabase = SqlDatabase | MemoryDatabase


@pytest.fixture
def stocked(database: AnyDatabase) -> AnyDatabase:
    """Volume 1 with an image and an appliance, two machines (2 and 3), two operations."""
    with database.write() as writer:
        writer.insert(Resource(name="host", manual=True, address="10.0.0.1", phase=Phase.UNKNOWN))
        for number in (1, 2):
            writer.insert(Resource(name=f"worker{number}", mac=f"52:54:00:00:00:0{number}", phase=Phase.IDLE))
        writer.insert(Storage(name="s", type="nfs", resource_id=1))
        writer.insert(Volume(name="v", storage_id=1, phase=VolumePhase.READY, generation=4))
        writer.insert(Image(name="i", volume_id=1))
        writer.insert(Appliance(name="a", image_id=1))
        for name in ("image.move", "appliance.start"):
            writer.insert(Operation(name=name, status=OperationStatus.RUNNING))
    return database


def take(writer: Writer, operation: int = 1, *, write: bool = False, resource: int = 2, **more: Any) -> dict[str, Any]:
    arguments = {"volume_id": 1, "resource_id": resource, "write": write, **more}
    return loans.take(writer, ChangeCall(operation, arguments))


def lease(writer: Writer) -> Lease:
    return writer.insert(
        Lease(
            image_id=1,
            resource_id=3,
            appliance_id=1,
            operation_id=2,
            generation=5,
            held_image=1,
            held_resource=3,
            held_appliance=1,
        )
    )


def test_many_may_read(stocked: AnyDatabase) -> None:
    with stocked.write() as writer:
        first = take(writer)
        second = take(writer, operation=2, resource=3, appliance_id=1)
        assert first["generation"] == second["generation"] == 0
        assert first["loan_id"] != second["loan_id"]
        assert writer.get(Volume, 1).generation == 4
        assert [loan.appliance_id for loan in loans.held(writer, writer.get(Volume, 1))] == [None, 1]


def test_one_writes_with_the_next_generation(stocked: AnyDatabase) -> None:
    with stocked.write() as writer:
        taken = take(writer, write=True)
        assert taken["generation"] == writer.get(Volume, 1).generation == 5
        with pytest.raises(ConflictError, match=r"volume v is being written by operation 1 \(image.move\)"):
            take(writer, operation=2)
        with pytest.raises(ConflictError, match="written"):
            take(writer, operation=2, write=True)
        loans.give_back(writer, ChangeCall(1, {"loan_id": taken["loan_id"]}))
        assert take(writer, operation=2, write=True)["generation"] == 6


def test_nobody_writes_what_is_read(stocked: AnyDatabase) -> None:
    with stocked.write() as writer:
        take(writer)
        with pytest.raises(ConflictError, match=r"volume v is being read by operation 1"):
            take(writer, operation=2, write=True)
        assert writer.get(Volume, 1).generation == 4


@pytest.mark.parametrize("write", [False, True])
def test_the_same_operation_gets_the_same_loan_again(stocked: AnyDatabase, write: bool) -> None:
    with stocked.write() as writer:
        first = take(writer, write=write)
        assert take(writer, write=write) == first
        assert writer.count(Loan) == 1


@pytest.mark.parametrize("write", [False, True])
def test_a_lease_keeps_loans_away(stocked: AnyDatabase, write: bool) -> None:
    with stocked.write() as writer:
        held = lease(writer)
        with pytest.raises(ConflictError, match=r"image i on volume v is in use by appliance a"):
            take(writer, write=write)
        writer.update(held, state=LeaseState.RELEASED, held_image=None, held_resource=None, held_appliance=None)
        take(writer, write=write)


@pytest.mark.parametrize("write", [False, True])
def test_loans_keep_leases_away(stocked: AnyDatabase, write: bool) -> None:
    with stocked.write() as writer:
        before = writer.get(Volume, 1)
        taken = take(writer, write=write)
        with pytest.raises(ConflictError, match="operation 1"):
            loans.refuse_lent(writer, before)
        loans.give_back(writer, ChangeCall(1, {"loan_id": taken["loan_id"]}))
        assert loans.refuse_lent(writer, before).generation == (5 if write else 4), "as it is now"


@pytest.mark.parametrize("write", [False, True])
def test_returning_and_undoing_may_be_repeated(stocked: AnyDatabase, write: bool) -> None:
    with stocked.write() as writer:
        taken = take(writer, write=write)
        for _ in range(2):
            loans.give_back(writer, ChangeCall(1, {"loan_id": taken["loan_id"]}))
            assert not loans.held(writer, writer.get(Volume, 1))
        for _ in range(2):
            loans.undo_take(writer, ChangeCall(1, {}, taken))
            assert writer.count(Loan) == 0
        assert writer.get(Volume, 1).generation == (5 if write else 4), "a generation only grows"


def test_what_is_not_ready_is_not_read(stocked: AnyDatabase) -> None:
    with stocked.write() as writer:
        for phase in (VolumePhase.CREATING, VolumePhase.REMOVING):
            writer.update(writer.get(Volume, 1), phase=phase)
            with pytest.raises(ConflictError, match=f"volume v is {phase}"):
                take(writer)
        with pytest.raises(ConflictError, match="removing"):
            take(writer, write=True)
        writer.update(writer.get(Volume, 1), phase=VolumePhase.CREATING)
        take(writer, write=True)


def test_a_machine_with_a_loan_stays_where_and_what_it_is(stocked: AnyDatabase) -> None:
    with stocked.write() as writer:
        worker, storage = writer.get(Resource, 2), writer.get(Storage, 1)
        taken = take(writer)
        with pytest.raises(ConflictError, match="worker1 works for operation 1"):
            depending.refuse_moving(writer, worker)
        with pytest.raises(ConflictError, match="worker1 works for operation 1"):
            refuse_used_resource(writer, worker)
        with pytest.raises(ConflictError, match="storage s serves operation 1"):
            depending.refuse_granted(writer, storage)
        loans.give_back(writer, ChangeCall(1, {"loan_id": taken["loan_id"]}))
        depending.refuse_moving(writer, worker)
        refuse_used_resource(writer, worker)
        depending.refuse_granted(writer, storage)


def test_a_volume_goes_with_its_old_loans_and_not_with_held_ones(stocked: AnyDatabase) -> None:
    with stocked.write() as writer:
        writer.delete(Appliance, 1)
        writer.delete(Image, 1)
        taken = take(writer)
        with pytest.raises(ConflictError, match="being read"):
            loans.forget_volume(writer, ChangeCall(2, {"volume_id": 1}))
        loans.give_back(writer, ChangeCall(1, {"loan_id": taken["loan_id"]}))
        for _ in range(2):
            loans.forget_volume(writer, ChangeCall(2, {"volume_id": 1}))
        assert writer.count(Loan) == writer.count(Volume) == 0


def test_an_appliance_goes_with_what_it_borrowed_once(stocked: AnyDatabase) -> None:
    with stocked.write() as writer:
        taken = take(writer, 2, appliance_id=1)
        loans.give_back(writer, ChangeCall(2, {"loan_id": taken["loan_id"]}))
    with stocked.write() as writer:
        leases.forget_appliance(writer, ChangeCall(2, {"appliance_id": 1}))
    with stocked.read() as reader:
        assert reader.count(Appliance) == reader.count(Loan) == 0
