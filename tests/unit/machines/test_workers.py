"""A machine that copies for an operation: which boots are taken for it, what it is told, and when it is proved gone."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.errors import ForbiddenError, NotFoundError
from openqrm.domain.event import Event
from openqrm.domain.lease import LeaseState, Loan
from openqrm.domain.operation import Operation
from openqrm.domain.resource import Desired, Health, MachineOrder, Phase, Resource
from openqrm.domain.storage import Storage, Volume
from openqrm.netboot.lookup import decision_for
from openqrm.operations import machine_orders, machine_tokens, mounting, transfer_orders, workers
from openqrm.operations.machine_messages import Done, OrderProgress
from openqrm.plugin_api.changes import ChangeCall
from openqrm.testing.datacentre import NoHooks

if TYPE_CHECKING:
    from tests.unit.machines.conftest import World

    from openqrm.operations.machine_tokens import Session
    from openqrm.plugin_api.changes import Progress
    from openqrm.plugin_api.drivers import Client
    from openqrm.plugin_api.records import Reader

OPERATION = 2


class Mounting:
    """A machine at work for operation 2, ordered to copy volume 1 to volume 2."""

    def __init__(self, world: World) -> None:
        self.world = world
        registered = world.register("the-boot-1")
        self.resource_id, self.token = registered.resource.id, registered.token
        with world.database.write() as writer:
            writer.insert(Operation(name="image.move"))
            host = writer.insert(Resource(name="host", address="10.0.0.1", manual=True))
            for number, kind in enumerate(("nfs", "iscsi"), start=1):
                storage = writer.insert(Storage(name=kind, type=kind, resource_id=host.id))
                volume = writer.insert(Volume(name=f"v{number}", storage_id=storage.id, generation=number + 4))
                writer.insert(
                    Loan(
                        volume_id=volume.id,
                        resource_id=self.resource_id,
                        operation_id=OPERATION,
                        generation=number + 4,
                        written=volume.id,
                    )
                )
            writer.update(writer.get(Resource, self.resource_id), desired=Desired.ASSIGNED)
            order = writer.insert(
                MachineOrder(
                    resource_id=self.resource_id,
                    operation_id=OPERATION,
                    verb="transfer",
                    boot_id="the-boot-1",
                    details={"from": 1, "to": 2},
                )
            )
        self.order_id = order.id

    @property
    def order(self) -> MachineOrder:
        with self.world.database.read() as reader:
            return reader.get(MachineOrder, self.order_id)

    def recall(self) -> None:
        with self.world.database.write() as writer:
            workers.recall(writer, ChangeCall(OPERATION, {}, {"order_id": self.order_id}))

    def progress(self, condition: str, *, revocable: bool = False) -> Progress:
        arguments = {"resource_id": self.resource_id, "order_id": self.order_id, "revocable": revocable}
        with self.world.database.read() as reader:
            return workers.WORKER_CONDITIONS[condition](reader, ChangeCall(OPERATION, arguments))

    def back(self, *, revocable: bool = False) -> bool:
        return self.progress("worker.back", revocable=revocable).done

    def says(self, message: Any) -> None:
        with self.world.database.write() as writer:
            session = machine_tokens.session_of(writer, self.token)
            assert session is not None
            machine_orders.answered(writer, session, message)


@pytest.fixture
def worker(world: World) -> Mounting:
    return Mounting(world)


def test_only_a_ticket_takes_in_a_new_boot_of_a_machine_at_work(world: World, worker: Mounting) -> None:
    with world.database.read() as reader:
        assert decision_for(reader, reader.get(Resource, worker.resource_id), lambda _: NoHooks()).ticket
    assert world.refused("the-boot-2").status == 401
    assert world.resource(worker.resource_id).boot_id == "the-boot-1", "a made-up boot is no proof"
    assert not worker.back()
    ticket = world.ticket(worker.resource_id)
    world.register("the-boot-2", ticket=ticket)
    with world.database.write() as writer:
        for loan in writer.find(Loan):
            writer.update(loan, state=LeaseState.RELEASED, written=None)
    world.register("the-boot-3")


def test_a_machine_that_restarts_goes_on_with_its_transfer(world: World, worker: Mounting) -> None:
    worker.says(OrderProgress(worker.order_id, 40, "copied"))
    world.register("the-boot-2", ticket=world.ticket(worker.resource_id))
    assert (worker.order.state, worker.order.boot_id) == ("open", "the-boot-2")
    assert not worker.back(), "it goes on with it"


def test_one_that_was_called_off_does_not(world: World, worker: Mounting) -> None:
    worker.says(OrderProgress(worker.order_id, 40, "copied"))
    worker.recall()
    (restart,) = [order for order in world.orders(worker.resource_id) if order.verb == "reboot"]
    assert (restart.operation_id, restart.boot_id) == (OPERATION, "the-boot-1")
    assert not worker.back(), "it was told; it has not done it yet"
    world.register("the-boot-2", ticket=world.ticket(worker.resource_id))
    assert worker.order.state == "void"
    assert worker.back()


def test_somebody_elses_restart_does_not_call_it_off(world: World, worker: Mounting) -> None:
    world.order(worker.resource_id, "reboot")
    world.register("the-boot-2", ticket=world.ticket(worker.resource_id))
    assert (worker.order.state, worker.order.boot_id) == ("open", "the-boot-2")


@pytest.mark.parametrize(("status", "state", "back"), [(0, "done", True), (1, "failed", True), (2, "void", False)])
def test_its_own_word_that_the_transfer_is_over_is_proof_if_it_is_clean(
    worker: Mounting, status: int, state: str, back: bool
) -> None:
    worker.says(Done(worker.order_id, status, "words"))
    assert worker.order.state == state
    assert worker.back() is back
    judged = worker.progress("worker.transferred")
    assert judged.done is (status == 0)
    assert bool(judged.failed) is (status != 0)
    with worker.world.database.read() as reader:
        told = [event.text for event in reader.find(Event)]
    ended = "could not transfer" if status else "has done its order to transfer"
    assert told[-1].endswith(f" {ended}: words")
    worker.recall()
    restarts = [order for order in worker.world.orders(worker.resource_id) if order.verb == "reboot"]
    assert not restarts, "it is over: nothing is to be called off"


def test_a_machine_that_was_told_nothing_or_is_off_is_back(world: World, worker: Mounting) -> None:
    with world.database.write() as writer:
        writer.update(writer.get(MachineOrder, worker.order_id), operation_id=1)
    assert worker.back()
    with world.database.write() as writer:
        writer.update(writer.get(MachineOrder, worker.order_id), operation_id=OPERATION)
    assert not worker.back()
    world.phase(worker.resource_id, "powered-off")
    assert worker.back()
    assert worker.progress("worker.transferred").failed


def test_a_lost_machine_is_back_only_if_its_access_can_be_revoked_and_is_given_up_after_a_while(
    world: World, worker: Mounting
) -> None:
    with world.database.write() as writer:
        writer.update(writer.get(Resource, worker.resource_id), health=Health.LOST)
        now = writer.now
    assert not worker.back()
    assert worker.back(revocable=True)
    assert not worker.progress("worker.transferred").failed
    world.database._clock = lambda: now + workers.GIVEN_UP + timedelta(seconds=1)  # type: ignore[attr-defined]
    assert worker.progress("worker.transferred").failed


def test_a_machine_is_free_when_it_holds_nothing_any_more(world: World, worker: Mounting) -> None:
    with world.database.write() as writer:
        for loan in writer.find(Loan):
            workers.release(writer, ChangeCall(OPERATION, {"resource_id": worker.resource_id}))
            assert writer.get(Resource, worker.resource_id).desired is Desired.ASSIGNED
            writer.update(loan, state=LeaseState.RELEASED, written=None)
        for _ in range(2):
            workers.release(writer, ChangeCall(OPERATION, {"resource_id": worker.resource_id}))
        resource = writer.get(Resource, worker.resource_id)
        assert (resource.phase, resource.desired) == (Phase.IDLE, Desired.IDLE)


# What it is told


class Export:
    """Drivers of both storages, as plug-ins would bring them."""

    def pool(self, storage: Any) -> Export:
        return self

    def export(self, storage: Any) -> Export:
        return self

    def context(self, storage: Any, reader: Reader) -> Storage:
        assert isinstance(storage, Storage)
        return storage

    def require(self, storage: Any, capability: str) -> None:
        return None

    def location(self, context: Any, volume: Any) -> str:
        return f"/pool/{volume.name}"

    def attach(self, context: Storage, volume: Any, location: str, client: Client) -> dict[str, str]:
        return {"ROOT_WHERE": f"{context.name} {location} {client.mac}", "PATH": "/evil"}


def kind(*secrets: str) -> dict[str, Any]:
    usual = {"own_machine": False, "in_memory": False, "start": "root", "through": "", "capabilities": []}
    return {**usual, "secrets": list(secrets)}


AROUND = mounting.Surroundings(
    lambda _: Export(),  # type: ignore[arg-type,return-value]  # what a transfer needs of drivers
    lambda _: NoHooks(),
    lambda _, name: name.encode(),
    "https://10.99.0.1:8443",
    "http://10.99.0.1:8080",
    "",
    lambda kernel, file: f"{kernel} {file}",
    lambda key: f"secret of {key}",
    {
        "deployments": {"nfs": "nfs-root", "iscsi": "iscsi-root"},
        "storage_types": {"nfs": kind(), "iscsi": kind("chap")},
    },
)


def ask(worker: Mounting, order_id: int | None = None) -> dict[str, str]:
    with worker.world.database.read() as reader:
        session: Session | None = machine_tokens.session_of(reader, worker.token)
        assert session is not None
        return transfer_orders.assignments(reader, session, worker.order_id if order_id is None else order_id, AROUND)


def test_it_is_told_both_sides_with_the_secrets_of_its_own_grants(worker: Mounting) -> None:
    told = ask(worker)
    assert told["ORDER"] == str(worker.order_id)
    assert told["FROM_ROOT_WHERE"] == "nfs /pool/v1 52:54:00:00:00:01"
    assert told["TO_ROOT_WHERE"] == "iscsi /pool/v2 52:54:00:00:00:01"
    assert (told["FROM_DEPLOYMENT"], told["TO_DEPLOYMENT"]) == ("nfs-root", "iscsi-root")
    assert told["TO_HOOK_URL"].endswith("/node/v1/files/root-mount.iscsi-root")
    assert told["TO_ROOT_SECRET_CHAP"] == "secret of grant-2-6-chap"
    assert "FROM_ROOT_SECRET_CHAP" not in told
    assert not [name for name in told if name.endswith("PATH")]


def test_others_are_told_nothing(world: World, worker: Mounting) -> None:
    other = world.register("other-boot", "52:54:00:00:00:02")
    with world.database.read() as reader:
        stranger = machine_tokens.session_of(reader, other.token)
        assert stranger is not None
        with pytest.raises(ForbiddenError):
            transfer_orders.assignments(reader, stranger, worker.order_id, AROUND)
    with pytest.raises((ForbiddenError, NotFoundError)):
        ask(worker, 77)


def test_what_is_over_or_not_lent_is_told_no_more(world: World, worker: Mounting) -> None:
    with world.database.write() as writer:
        loan = writer.find(Loan)[1]
        writer.update(loan, state=LeaseState.RELEASED, written=None)
    with pytest.raises(ForbiddenError, match="not lent to this machine"):
        ask(worker)
    worker.says(Done(worker.order_id, 0, ""))
    with pytest.raises(ForbiddenError, match="no such order"):
        ask(worker)
