"""What is over goes, and nothing else, on every database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.appliance import Appliance
from openqrm.domain.event import Event, Severity
from openqrm.domain.lease import Lease, LeaseState, Loan
from openqrm.domain.machine import BootTicket
from openqrm.domain.operation import UNFINISHED, Operation, OperationStatus, StepRecord
from openqrm.domain.resource import MachineOrder, Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.domain.user import EndedSession
from openqrm.operations.retention import BATCH, OPERATIONS, Limits, Retention
from openqrm.store.database import SqlDatabase
from openqrm.store.lists import ListQuery, list_records

if TYPE_CHECKING:
    from openqrm.domain.model import Record
    from openqrm.plugin_api.records import Writer
    from openqrm.testing.memory import MemoryDatabase

    AnyDatabase = SqlDatabase | MemoryDatabase

OLD = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = OLD

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock(database: AnyDatabase) -> Clock:
    made = Clock()
    database._clock = made  # no test database takes a clock of its own
    return made


def ids(database: AnyDatabase, kind: type[Record]) -> list[int]:
    with database.read() as reader:
        return [one.id for one in reader.find(kind)]


def finished(writer: Writer, **further: Any) -> Operation:
    fields = {"name": "x.do", "status": OperationStatus.DONE, "finished_at": writer.now, **further}
    operation = writer.insert(Operation.model_validate(fields))
    writer.insert(StepRecord(operation_id=operation.id, position=0, name="a", kind="run"))
    return operation


def prune(database: AnyDatabase, limits: Limits | None = None) -> Retention:
    retention = Retention(database, limits or Limits(), pause=0)
    asyncio.run(retention.prune())
    return retention


def test_finished_operations_go_and_unfinished_stay(database: AnyDatabase, clock: Clock) -> None:
    with database.write() as writer:
        gone = finished(writer)
        again = finished(writer, rerun_of=gone.id)
        waits = [finished(writer, status=status, finished_at=None) for status in sorted(UNFINISHED)]
        writer.event("asked", severity=Severity.INFO, source="core", operation_id=gone.id)
    clock.now += timedelta(days=29)
    with database.write() as writer:
        later = finished(writer)
    assert prune(database).removed == {}
    clock.now += timedelta(days=2)
    assert prune(database).removed == {"operation": 2, "step": 2}
    assert ids(database, Operation) == [*(one.id for one in waits), later.id]
    assert len(ids(database, StepRecord)) == len(waits) + 1
    with database.read() as reader:
        event = reader.find(Event)[0]
    assert (event.operation_id, event.data["operation_id"], again.rerun_of) == (None, gone.id, gone.id)


def test_a_re_run_forgets_what_it_ran_again(database: AnyDatabase, clock: Clock) -> None:
    with database.write() as writer:
        gone = finished(writer)
    clock.now += timedelta(days=31)
    with database.write() as writer:
        again = finished(writer, rerun_of=gone.id)
    prune(database)
    with database.read() as reader:
        assert [(one.id, one.rerun_of) for one in reader.find(Operation)] == [(again.id, None)]


def test_events_go_by_age_and_by_number_with_their_words(database: AnyDatabase, clock: Clock) -> None:
    with database.write() as writer:
        for number in range(2 * BATCH + 7):
            writer.event(f"needle {number}", severity=Severity.INFO, source="t")
    clock.now += timedelta(days=91)
    with database.write() as writer:
        for number in range(20):
            writer.event(f"fresh {number}", severity=Severity.INFO, source="t")
    work = Retention(database, Limits()).transactions()
    assert max(work) == BATCH
    assert len(ids(database, Event)) == 20
    prune(database, Limits(events_rows=5))
    with database.read() as reader:
        assert [one.text for one in reader.find(Event)] == [f"fresh {number}" for number in range(15, 20)]
        assert list_records(reader, Event, ListQuery(search="needle")).total == 0
    if isinstance(database, SqlDatabase):
        with database.read() as sql:
            words = sql.connection.execute(database.schema.words.select()).all()
        assert {word.record_id for word in words} == set(ids(database, Event))


def test_operations_go_by_number(database: AnyDatabase, clock: Clock) -> None:
    with database.write() as writer:
        made = [finished(writer) for _ in range(3 * OPERATIONS)]
    prune(database, Limits(operations_rows=4))
    assert ids(database, Operation) == [one.id for one in made[-4:]]


def test_leases_orders_tickets_and_sessions(database: AnyDatabase, clock: Clock) -> None:
    with database.write() as writer:
        machine = writer.insert(Resource(name="m", boot_id="now"))
        storage = writer.insert(Storage(name="s", resource_id=machine.id, type="nfs"))
        volume = writer.insert(Volume(name="v", storage_id=storage.id))
        image = writer.insert(Image(name="i", volume_id=volume.id))
        appliance = writer.insert(Appliance(name="a", image_id=image.id, kernel_id=None))
        started = [finished(writer) for _ in range(3)]
        leases = [
            writer.insert(
                Lease(
                    image_id=image.id,
                    resource_id=machine.id,
                    appliance_id=appliance.id,
                    operation_id=operation.id,
                    generation=number + 1,
                    state=LeaseState.RELEASED,
                )
            )
            for number, operation in enumerate(started)
        ]
        orders = [
            writer.insert(MachineOrder(resource_id=machine.id, verb="reboot", state=state, operation_id=operation))
            for state, operation in (("done", None), ("open", None), ("failed", started[0].id), ("void", started[2].id))
        ]
        tickets = [
            writer.insert(
                BootTicket(resource_id=machine.id, ticket_hash=str(number), expires_at=clock.now, redeemed_by=boot)
            )
            for number, boot in enumerate((None, "before", "now"))
        ]
        writer.insert(EndedSession(session_hash="x", expires_at=clock.now + timedelta(hours=1)))
    clock.now += timedelta(days=31)
    prune(database)
    assert ids(database, Lease) == [leases[2].id], "its generation is the last one used"
    assert ids(database, Operation) == [started[2].id], "the lease names it"
    assert ids(database, MachineOrder) == [orders[1].id, orders[3].id], "an order goes with its operation"
    assert ids(database, BootTicket) == [tickets[2].id], "the machine may show it again"
    assert ids(database, EndedSession) == []


def test_returned_loans_go_with_their_operations_and_held_ones_keep_theirs(database: AnyDatabase, clock: Clock) -> None:
    with database.write() as writer:
        host = writer.insert(Resource(name="host"))
        storage = writer.insert(Storage(name="s", type="t", resource_id=host.id))
        volume = writer.insert(Volume(name="v", storage_id=storage.id, generation=2))
        made = [finished(writer), finished(writer)]
        loans = [
            writer.insert(Loan(volume_id=volume.id, resource_id=host.id, operation_id=one.id, generation=number))
            for number, one in enumerate(made)
        ]
        writer.update(loans[0], state=LeaseState.RELEASED)
    clock.now += timedelta(days=31)
    assert prune(database).removed == {"loan": 1, "operation": 1, "step": 1}
    assert ids(database, Loan) == [loans[1].id]
    assert ids(database, Operation) == [made[1].id]
