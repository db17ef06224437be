"""The core's own operations on records: what they refuse, and by whom a thing is used."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.appliance import Appliance
from openqrm.domain.errors import ConflictError, ForbiddenError, InvalidError, NoCapacityError, NotFoundError
from openqrm.domain.kernel import Kernel
from openqrm.domain.network import Address, Network, Nic
from openqrm.domain.operation import Operation
from openqrm.domain.resource import MachineOrder, Phase, Resource
from openqrm.domain.storage import Image, Storage, Volume, VolumePhase
from openqrm.domain.user import Token, User, UserRole
from openqrm.operations.conditions import CONDITIONS
from openqrm.operations.core_orders import forget_resource
from openqrm.operations.credentials import token_digest, use_passwords
from openqrm.operations.passwords import CHEAP, Passwords
from openqrm.plugin_api.changes import ChangeCall
from openqrm.testing.memory import MemoryDatabase
from openqrm.testing.wiring import ADMIN, OPERATOR, NoDrivers, add_users, pipeline_of

if TYPE_CHECKING:
    from openqrm.operations.pipeline import Pipeline
    from openqrm.plugin_api.drivers import StorageContext
    from openqrm.plugin_api.records import Reader
    from openqrm.store.database import SqlDatabase


@pytest.fixture(scope="module", autouse=True)
def _cheap_passwords() -> None:
    use_passwords(Passwords(CHEAP))


@pytest.fixture
def pipeline() -> Pipeline:
    database = MemoryDatabase()
    add_users(database)
    return pipeline_of(database)


def call(pipeline: Pipeline, operation: str, target: int | str | None = None, /, **arguments: Any) -> Any:
    return pipeline.call(operation, ADMIN, target, arguments).record


def lan(pipeline: Pipeline, **further: Any) -> Network:
    values = {"name": "lan", "cidr": "10.0.0.0/24", "machines": {"first": "10.0.0.10", "last": "10.0.0.12"}}
    made = call(pipeline, "network.create", **(values | further))
    assert isinstance(made, Network)
    return made


def box(pipeline: Pipeline, number: int = 1) -> Resource:
    made = call(
        pipeline, "resource.create", mac=f"52:54:00:aa:00:{number:02}", address="10.0.0.5", name=f"box-{number}"
    )
    assert isinstance(made, Resource)
    return made


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cidr": "10.0.0.1/24"}, "cidr"),
        ({"cidr": "fe80::/64"}, "cidr"),
        ({"machines": {"first": "10.0.0.20", "last": "10.0.0.10"}}, "machines"),
        ({"machines": {"first": "10.0.1.1", "last": "10.0.1.2"}}, "machines"),
        ({"machines": {"first": "10.0.0.0", "last": "10.0.0.9"}}, "machines"),
        ({"machines": {"first": "10.0.0.9", "last": "10.0.0.255"}}, "machines"),
        ({"discovery": {"first": "10.0.0.12", "last": "10.0.0.20"}}, "discovery"),
        ({"gateway": "10.0.0.11"}, "machines"),
        ({"gateway": "192.168.0.1"}, "gateway"),
        ({"vlan": 4095}, "vlan"),
        ({"role": "party"}, "role"),
    ],
)
def test_networks_that_cannot_be(pipeline: Pipeline, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        lan(pipeline, **changes)
    assert caught.value.field == field


def test_networks_do_not_overlap_on_one_vlan(pipeline: Pipeline) -> None:
    lan(pipeline)
    with pytest.raises(ConflictError, match="overlaps"):
        lan(pipeline, name="other", cidr="10.0.0.0/16", machines=None)
    assert lan(pipeline, name="tagged", cidr="10.0.0.0/16", machines=None, vlan=7).vlan == 7


def test_a_network_in_use_stays(pipeline: Pipeline) -> None:
    lan(pipeline)
    address = call(pipeline, "address.allocate", network_id="lan")
    with pytest.raises(ConflictError, match=r"network lan is used by address 10\.0\.0\.10"):
        call(pipeline, "network.remove", "lan")
    call(pipeline, "address.release", address.id)
    assert call(pipeline, "network.remove", "lan") is None


def test_a_changed_range_is_checked_too(pipeline: Pipeline) -> None:
    lan(pipeline)
    with pytest.raises(InvalidError, match="not inside"):
        call(pipeline, "network.update", "lan", machines={"first": "10.9.0.1", "last": "10.9.0.2"})
    assert call(pipeline, "network.update", "lan", machines=None).machines is None


def test_addresses_are_the_next_free_ones_around_the_end(pipeline: Pipeline) -> None:
    lan(pipeline)
    taken = [call(pipeline, "address.allocate", network_id="lan") for _ in range(3)]
    assert [each.address for each in taken] == ["10.0.0.10", "10.0.0.11", "10.0.0.12"]
    with pytest.raises(NoCapacityError, match="all 3 addresses"):
        call(pipeline, "address.allocate", network_id="lan")
    call(pipeline, "address.release", taken[1].id)
    assert call(pipeline, "address.allocate", network_id="lan").address == "10.0.0.11"


def test_a_named_address_is_inside_and_free(pipeline: Pipeline) -> None:
    lan(pipeline, gateway="10.0.0.1")
    assert call(pipeline, "address.allocate", network_id="lan", address="10.0.0.200").address == "10.0.0.200"
    for address in ("10.0.0.200", "10.0.0.1"):
        with pytest.raises(ConflictError):
            call(pipeline, "address.allocate", network_id="lan", address=address)
    for address in ("10.0.1.1", "10.0.0.0", "10.0.0.255", "no"):
        with pytest.raises(InvalidError):
            call(pipeline, "address.allocate", network_id="lan", address=address)


def test_a_network_without_range_has_no_addresses(pipeline: Pipeline) -> None:
    lan(pipeline, machines=None)
    with pytest.raises(NoCapacityError, match="no machine range"):
        call(pipeline, "address.allocate", network_id="lan")


def test_no_address_is_given_twice_to_threads(database: SqlDatabase | MemoryDatabase) -> None:
    add_users(database)
    pipeline = pipeline_of(database)
    lan(pipeline, machines={"first": "10.0.0.10", "last": "10.0.0.99"})
    errors: list[BaseException] = []

    def take() -> None:
        try:
            for _ in range(10):
                call(pipeline, "address.allocate", network_id="lan")
        except BaseException as error:  # noqa: BLE001  # handed to the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    with database.read() as reader:
        assert len({each.address for each in reader.find(Address)}) == 80


def test_cards(pipeline: Pipeline) -> None:
    lan(pipeline)
    resource = box(pipeline)
    nic = call(pipeline, "nic.create", resource_id="box-1", mac="52-54-00-00-00-09", network_id="lan")
    assert isinstance(nic, Nic)
    with pytest.raises(ConflictError, match="mac"):
        call(pipeline, "nic.create", resource_id=resource.id, mac="52:54:00:00:00:09")
    with pytest.raises(NotFoundError):
        call(pipeline, "nic.create", resource_id=99, mac="52:54:00:00:00:10")
    address = call(pipeline, "address.allocate", network_id="lan", nic_id="52:54:00:00:00:09")
    with pytest.raises(ConflictError, match=r"used by address 10\.0\.0\.10"):
        call(pipeline, "nic.remove", nic.id)
    call(pipeline, "address.release", address.id)
    assert call(pipeline, "nic.remove", nic.id) is None


def test_a_resource_in_use_stays(pipeline: Pipeline) -> None:
    resource = box(pipeline)
    call(pipeline, "storage.create", name="nfs1", type="nfs", resource_id="box-1")
    with pytest.raises(ConflictError, match="resource box-1 is used by storage nfs1"):
        call(pipeline, "resource.remove", resource.id)
    with pipeline.database.write() as writer:
        writer.insert(Resource(id=0, name="server", type="server", phase=Phase.ACTIVE))
    with pytest.raises(ConflictError, match="the openQRM server itself"):
        call(pipeline, "resource.remove", 0)


def test_a_forgotten_resource_takes_its_cards_along(pipeline: Pipeline) -> None:
    lan(pipeline)
    resource = box(pipeline)
    nic = call(pipeline, "nic.create", resource_id=resource.id, mac="52:54:00:00:00:09", network_id="lan")
    call(pipeline, "address.allocate", network_id="lan", nic_id=nic.id)
    with pipeline.database.write() as writer:
        writer.insert(MachineOrder(resource_id=resource.id, verb="reboot"))
        for _ in range(2):
            forget_resource(writer, ChangeCall(1, {"resource_id": resource.id}))
        for kind in (Resource, Nic, Address, MachineOrder):
            assert not writer.find(kind)


def test_host_keys_of_a_closed_box_are_entered_and_forgotten(pipeline: Pipeline) -> None:
    resource = box(pipeline)
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0000000000000000000000000000000000000000aa"
    assert call(pipeline, "resource.update", resource.id, ssh_host_keys=[key]).ssh_host_keys == (key,)
    assert call(pipeline, "resource.update", resource.id, group="g").ssh_host_keys == (key,)
    assert call(pipeline, "resource.update", resource.id, ssh_host_keys=[]).ssh_host_keys == ()
    with pytest.raises(InvalidError):
        call(pipeline, "resource.update", resource.id, ssh_host_keys=["key"])
    with pipeline.database.write() as writer:
        machine = writer.insert(Resource(name="machine", mac="52:54:00:00:00:0a"))
    with pytest.raises(ConflictError):
        call(pipeline, "resource.update", machine.id, ssh_host_keys=[key])


def test_orders_go_to_machines_alone(pipeline: Pipeline) -> None:
    with pipeline.database.write() as writer:
        machine = writer.insert(Resource(name="node", mac="52:54:00:00:00:01", phase=Phase.IDLE))
        crate = writer.insert(Resource(name="crate", mac="52:54:00:00:00:02", phase=Phase.IDLE, manual=True))
    outcome = pipeline.call("resource.reboot", OPERATOR, machine.id, {})
    assert outcome.operation
    assert outcome.operation.forward_only
    with pytest.raises(ConflictError, match="made by hand"):
        pipeline.call("resource.poweroff", OPERATOR, crate.id, {})


def test_an_order_is_done_when_the_machine_says_so() -> None:
    database = MemoryDatabase()
    with database.write() as writer:
        machine = writer.insert(Resource(name="node", mac="52:54:00:00:00:01"))
        order = writer.insert(MachineOrder(resource_id=machine.id, verb="reboot"))
        asked = ChangeCall(1, {"order_id": order.id})
        assert not CONDITIONS["order.done"](writer, asked).done
        writer.update(order, state="done")
        assert CONDITIONS["order.done"](writer, asked).done
        writer.update(order, state="failed", text="no reboot command")
        assert CONDITIONS["order.done"](writer, asked).failed == "the machine could not reboot: no reboot command"


class Picky(NoDrivers):
    """A storage type that takes a `path` and nothing else."""

    def context(self, storage: Storage, reader: Reader) -> StorageContext:
        if set(storage.settings) != {"path"}:
            raise InvalidError("settings: path is missing", field="settings")
        return super().context(storage, reader)


def test_a_storage_is_what_its_type_accepts() -> None:
    database = MemoryDatabase()
    add_users(database)
    pipeline = pipeline_of(database, drivers=Picky())
    box(pipeline)
    with pytest.raises(InvalidError, match="path"):
        call(pipeline, "storage.create", name="s", type="nfs", resource_id=1)
    with pytest.raises(NotFoundError):
        call(pipeline, "storage.create", name="s", type="nfs", resource_id=99, settings={"path": "/x"})
    storage = call(pipeline, "storage.create", name="s", type="nfs", resource_id=1, settings={"path": "/x"})
    with pytest.raises(InvalidError, match="path"):
        call(pipeline, "storage.update", storage.id, settings={})
    assert call(pipeline, "storage.update", storage.id, name="t").name == "t"
    with database.write() as writer:
        writer.insert(Volume(name="v", storage_id=storage.id))
    with pytest.raises(ConflictError, match="storage t is used by volume v"):
        call(pipeline, "storage.remove", "t")


def test_users(pipeline: Pipeline) -> None:
    made = call(pipeline, "user.create", name="eve", role="operator", password="correct horse")
    assert isinstance(made, User)
    assert made.password_hash.startswith("$argon2id$")
    with pytest.raises(InvalidError) as caught:
        call(pipeline, "user.create", name="bob", password="short")
    assert caught.value.field == "password"
    assert "short" not in str(caught.value.as_dict())
    call(pipeline, "user.create", name="evelinde", password="correct horse")
    with pytest.raises(InvalidError, match="name"):
        call(pipeline, "user.set-password", "evelinde", password="evelinde")
    locked = call(pipeline, "user.update", "eve", enabled=False)
    assert (locked.enabled, locked.role) == (False, UserRole.OPERATOR)


def test_the_last_admin_stays(pipeline: Pipeline) -> None:
    for operation, arguments in (
        ("user.remove", {}),
        ("user.update", {"role": "viewer"}),
        ("user.update", {"enabled": False}),
    ):
        with pytest.raises(ConflictError, match="last admin"):
            call(pipeline, operation, "admin", **arguments)
    call(pipeline, "user.update", "olga", role="admin")
    assert call(pipeline, "user.remove", "admin") is None


def test_tokens(pipeline: Pipeline) -> None:
    own = pipeline.call("token.create", OPERATOR, None, {"name": "ci", "days": 30}).record
    assert own is not None
    with pipeline.database.read() as reader:
        stored = reader.get(Token, own.id)
    assert stored.token_hash == token_digest(own.token)  # type: ignore[attr-defined]  # of IssuedToken
    assert stored.user_id == OPERATOR.user_id
    assert stored.expires_at is not None
    with pytest.raises(ForbiddenError):
        pipeline.call("token.create", OPERATOR, None, {"name": "x", "user_id": "admin"})
    foreign = call(pipeline, "token.create", name="mine")
    with pytest.raises(NotFoundError):
        pipeline.call("token.remove", OPERATOR, foreign.id, {})
    assert pipeline.call("token.remove", OPERATOR, own.id, {}).status == "done"
    call(pipeline, "user.remove", "victor")


def test_a_removed_user_takes_the_tokens_along(pipeline: Pipeline) -> None:
    call(pipeline, "token.create", name="t", user_id="victor")
    call(pipeline, "user.remove", "victor")
    with pipeline.database.read() as reader:
        assert not reader.find(Token)


def test_an_event_is_acknowledged_once(pipeline: Pipeline) -> None:
    lan(pipeline)
    first = pipeline.call("event.acknowledge", OPERATOR, 1, {}).record
    again = call(pipeline, "event.acknowledge", 1)
    assert first is not None
    assert again.acknowledged_by == "olga"


def test_one_kernel_is_the_default(pipeline: Pipeline) -> None:
    with pipeline.database.write() as writer:
        writer.insert(Kernel(name="old", version="6.0", default=True, ready=True))
        writer.insert(Kernel(name="new", version="6.1", ready=True))
        writer.insert(Kernel(name="raw", version="6.2"))
    call(pipeline, "kernel.set-default", "new")
    with pytest.raises(ConflictError):
        call(pipeline, "kernel.set-default", "raw")
    with pipeline.database.read() as reader:
        assert [kernel.name for kernel in reader.find(Kernel, default=True)] == ["new"]


def test_the_root_password_is_kept_as_a_hash(pipeline: Pipeline) -> None:
    with pipeline.database.write() as writer:
        host = writer.insert(Resource(name="host", mac="52:54:00:00:00:01"))
        storage = writer.insert(Storage(name="s", type="nfs", resource_id=host.id))
        volume = writer.insert(Volume(name="v", storage_id=storage.id, phase=VolumePhase.READY))
        image = writer.insert(Image(name="web", volume_id=volume.id))
        writer.insert(Appliance(name="a", image_id=image.id))
    assert call(pipeline, "image.set-password", "web", password="correct horse").root_password_hash.startswith("$6$")
    assert call(pipeline, "image.set-password", "web", password="").root_password_hash == ""
    with pytest.raises(InvalidError):
        call(pipeline, "image.set-password", "web", password="two\nlines")
    with pytest.raises(InvalidError, match="at least 8 characters") as caught:
        call(pipeline, "image.set-password", "web", password="x")
    assert caught.value.field == "password"
    with pytest.raises(ConflictError, match="used by appliance a"):
        call(pipeline, "image.remove", "web")


def test_an_abandoned_operation_frees_its_target(pipeline: Pipeline) -> None:
    resource = box(pipeline)
    queued = pipeline.call("resource.remove", ADMIN, resource.id, {}).operation
    assert queued
    with pipeline.database.write() as writer:
        writer.update(writer.get(Operation, queued.id), status="attention")
    assert pipeline.call("operation.abandon", ADMIN, queued.id, {}).record.status == "abandoned"  # type: ignore[union-attr]
    with pipeline.database.read() as reader:
        assert reader.get(Operation, queued.id).finished_at is not None
