"""What may not change under those who depend on it: settings, addresses, leases, volumes, the default kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.appliance import APPLIANCE_PHASES, Appliance, AppliancePhase
from openqrm.domain.errors import ConflictError, ForbiddenError, InvalidError, NoCapacityError
from openqrm.domain.event import Event
from openqrm.domain.kernel import Kernel, fits_line
from openqrm.domain.lease import Lease
from openqrm.domain.network import Address, AddressRange, Network, Nic, plain_ip
from openqrm.domain.operation import Operation, OperationStatus, OperationTarget
from openqrm.domain.resource import RESOURCE_PHASES, SERVER_ID, Desired, Health, Phase, Resource
from openqrm.domain.storage import VOLUME_PHASES, Image, Storage, Volume, VolumePhase
from openqrm.domain.user import UserRole
from openqrm.netboot import script
from openqrm.netboot.lookup import decision_for
from openqrm.operations import addresses, kernel, leases
from openqrm.operations.appliance_plans import plan_release
from openqrm.operations.core_operation import OPERATIONS as OF_OPERATIONS
from openqrm.operations.core_orders import forget_resource
from openqrm.operations.core_resource import plan_remove
from openqrm.plugin_api.changes import ChangeCall
from openqrm.plugin_api.drivers import StorageContext
from openqrm.plugin_api.operation import Operation as Declaration
from openqrm.plugin_api.operation import PlanContext, needs
from openqrm.plugins.storage.dir.driver import DirPool
from openqrm.plugins.storage.dir.plugin import DirSettings
from openqrm.plugins.storage.nfs.driver import NfsExport
from openqrm.plugins.storage.nfs.plugin import NfsSettings
from openqrm.testing.wiring import ADMIN, OPERATOR, NoDrivers, add_users, pipeline_of

if TYPE_CHECKING:
    from openqrm.domain.states import StateTable
    from openqrm.operations.pipeline import Pipeline
    from openqrm.plugin_api.records import Reader
    from openqrm.store.database import SqlDatabase
    from openqrm.testing.memory import MemoryDatabase


OWN = "10.0.0.1"
"""The controller's address."""


class NfsDrivers(NoDrivers):
    """The real declarations of the NFS plug-in."""

    def context(self, storage: Storage, reader: Reader) -> StorageContext:
        """Settings split as the controller does it."""
        del reader
        own = {name: value for name, value in storage.settings.items() if name in DirSettings.model_fields}
        handed = {name: value for name, value in storage.settings.items() if name in NfsSettings.model_fields}
        return StorageContext(storage, storage.resource_id, "10.0.0.2", DirSettings(**own), NfsSettings(**handed))

    def pool(self, storage: Storage) -> DirPool:
        """The real one."""
        del storage
        return DirPool()

    def export(self, storage: Storage) -> NfsExport:
        """The real one."""
        del storage
        return NfsExport()


@pytest.fixture
def pipeline(database: SqlDatabase | MemoryDatabase) -> Pipeline:
    """One storage with a volume and an image, one appliance, one idle machine."""
    add_users(database)
    with database.write() as writer:
        host = writer.insert(Resource(name="host", mac="52:54:00:00:00:01", address="10.0.0.2", manual=True))
        storage = writer.insert(Storage(name="nfs1", type="nfs", resource_id=host.id, settings={"directory": "/srv/a"}))
        volume = writer.insert(Volume(name="debian", storage_id=storage.id, phase=VolumePhase.READY))
        image = writer.insert(Image(name="debian", volume_id=volume.id))
        writer.insert(Appliance(name="web", image_id=image.id))
        idle = {"phase": Phase.IDLE, "health": Health.OK, "desired": Desired.IDLE}
        writer.insert(Resource(name="node", mac="52:54:00:00:00:02", address="10.0.0.9", **idle))
        writer.insert(Kernel(name="default", version="6.1", ready=True, default=True, default_mark=1))
    further = [(Declaration("box.guard", "Guard", "For admins", permission=needs(UserRole.ADMIN), act="x:y"),)]
    return pipeline_of(database, drivers=NfsDrivers(), further=further, address=OWN)


def one(pipeline: Pipeline, kind: type[Any], **conditions: Any) -> Any:
    with pipeline.database.read() as reader:
        return reader.one(kind, **conditions)


def call(pipeline: Pipeline, operation: str, target: int | str | None = None, /, **arguments: Any) -> Any:
    return pipeline.call(operation, ADMIN, target, arguments).record


def lease(pipeline: Pipeline) -> Lease:
    """What an abandoned start leaves: a stopped appliance that holds its lease."""
    with pipeline.database.write() as writer:
        operation = writer.insert(Operation(name="appliance.start", status=OperationStatus.ABANDONED))
        given = {"appliance_id": writer.find(Appliance)[0].id}
        made = leases.acquire(writer, ChangeCall(operation.id, given))
        return writer.get(Lease, made["lease_id"])


def test_an_immutable_setting_stays(pipeline: Pipeline) -> None:
    for changed in ({"directory": "/srv/b"}, {}, {"directory": "/srv/a", "ganesha_exports": "/etc/other"}):
        with pytest.raises(ConflictError, match="for good") as error:
            call(pipeline, "storage.update", "nfs1", settings=changed)
        assert (error.value.field or "").startswith("settings.")
    assert one(pipeline, Storage).settings == {"directory": "/srv/a"}
    call(pipeline, "storage.update", "nfs1", settings={"directory": "/srv/a", "mount_options": "vers=4.2"})
    assert one(pipeline, Storage).settings["mount_options"] == "vers=4.2"


def test_settings_stay_while_access_is_granted(pipeline: Pipeline) -> None:
    lease(pipeline)
    with pytest.raises(ConflictError, match="serves appliance web"):
        call(pipeline, "storage.update", "nfs1", settings={"directory": "/srv/a", "server": "kernel"})
    call(pipeline, "storage.update", "nfs1", name="nfs-one")


def test_the_address_of_a_storage_host_and_of_a_leased_machine_stays(pipeline: Pipeline) -> None:
    with pytest.raises(ConflictError, match="host of storage nfs1, which has volumes: debian"):
        call(pipeline, "resource.update", "host", address="10.0.0.3")
    call(pipeline, "resource.update", "host", address="10.0.0.2", group="rack-1")
    call(pipeline, "resource.update", "node", address="10.0.0.10")
    lease(pipeline)
    with pytest.raises(ConflictError, match="leased to appliance web"):
        call(pipeline, "resource.update", "node", address="10.0.0.11")


@pytest.mark.parametrize("address", ["::1%x; Clients = *", "fe80::1%eth0", "10.0.0.1%a", "10.0.0", ""])
def test_an_address_is_an_address_and_nothing_else(pipeline: Pipeline, address: str) -> None:
    with pytest.raises(ValueError, match="not an IP address"):
        plain_ip(address)
    with pytest.raises(InvalidError):
        call(pipeline, "resource.create", mac="52:54:00:00:00:07", address=address)
    with pytest.raises(InvalidError):
        call(pipeline, "resource.update", "node", address=address)
    assert plain_ip("FE80::01") == "fe80::1"


@pytest.mark.parametrize("line", ["root=${x}", "a || b", "a ; b", "quiet #x", "näh", "a\tb && c", "x\x7f"])
def test_a_kernel_line_that_no_boot_script_can_hold_is_refused(pipeline: Pipeline, line: str) -> None:
    for name, target, further in (
        ("kernel.update", "default", {}),
        ("kernel.add", None, {"name": "k", "version": "6.2"}),
    ):
        with pytest.raises(InvalidError, match="cannot stand on a boot script's kernel line"):
            call(pipeline, name, target, arguments=line, **further)
    assert not all(fits_line(word) for word in line.split())


def test_what_a_kernel_may_have_makes_a_script(pipeline: Pipeline) -> None:
    call(pipeline, "kernel.update", "default", arguments="console=ttyS0,115200  quiet\troot=LABEL=a;b|c&#d")
    with pipeline.database.read() as reader:
        decision = decision_for(reader, None, lambda _: pytest.fail("no hooks for an unknown machine"))
    text = script.boot(decision, boot_url="http://a", api_url="https://a", mac="52:54:00:00:00:01", platform="efi")
    assert "console=ttyS0,115200 quiet root=LABEL=a;b|c&#d" in text


def test_the_second_of_two_kernels_built_at_once_is_not_the_default(pipeline: Pipeline) -> None:
    with pipeline.database.write() as writer:
        writer.delete(Kernel, writer.find(Kernel)[0].id)
        made = [writer.insert(Kernel(name=name, version="6.1")) for name in ("one", "two")]
    with pipeline.database.write() as writer:
        offered = [kernel.offer(writer, ChangeCall(1, {"kernel_id": each.id})) for each in (*made, made[0])]
        assert [each["default"] for each in offered] == [True, False, True]
    call(pipeline, "kernel.set-default", "two")
    with pipeline.database.write() as writer:
        assert [each.name for each in writer.find(Kernel, default=True)] == ["two"]
        kernel.withdraw(writer, ChangeCall(1, {"kernel_id": made[1].id}))
        assert not writer.count(Kernel, default=True)
        assert kernel.offer(writer, ChangeCall(1, {"kernel_id": made[0].id})) == {"default": True}
    with pytest.raises(ConflictError), pipeline.database.write() as writer:
        writer.insert(Kernel(name="three", version="6.1", default=True, default_mark=1))


def test_an_appliance_with_a_lease_neither_changes_nor_starts(pipeline: Pipeline) -> None:
    held = lease(pipeline)
    with pytest.raises(ConflictError, match="still holds a lease") as error:
        call(pipeline, "appliance.update", "web", comment="x")
    assert error.value.remedy == "openqrm appliance release web"
    with pytest.raises(ConflictError, match="still holds a lease"):
        pipeline.call("appliance.start", ADMIN, "web", {})
    with pytest.raises(ConflictError), pipeline.database.write() as writer:
        writer.insert(
            Lease(
                **held.model_dump(include={"resource_id", "appliance_id", "operation_id", "held_appliance"}),
                image_id=writer.insert(_second_image(writer)).id,
                generation=1,
            )
        )


def _second_image(writer: Any) -> Image:
    volume = writer.insert(Volume(name="two", storage_id=writer.find(Storage)[0].id, phase=VolumePhase.READY))
    return Image(name="two", volume_id=volume.id)


def test_a_release_frees_the_image_that_was_leased(pipeline: Pipeline) -> None:
    """Whatever the appliance names now."""
    held = lease(pipeline)
    with pipeline.database.write() as writer:
        image = writer.insert(_second_image(writer))
        appliance = writer.update(writer.find(Appliance)[0], image_id=image.id)
    outcome = pipeline.call("appliance.release", ADMIN, "web", {})
    assert outcome.operation
    with pipeline.database.read() as reader:
        targets = {each.target for each in reader.find(OperationTarget, operation_id=outcome.operation.id)}
        assert targets == {f"appliance-{appliance.id}", f"image-{held.image_id}", "volume-1"}
        steps = _planned_release(reader, appliance)
    assert steps[-1] == ("release", held.id)


def _planned_release(reader: Reader, appliance: Appliance) -> list[tuple[str, int]]:
    class Export(NfsExport):
        def revoke(self, *_: Any) -> Any:
            return ()

    class Drivers(NfsDrivers):
        def export(self, storage: Storage) -> Export:
            del storage
            return Export()

    context = PlanContext(1, ADMIN, appliance, None, reader, {}, None, Drivers())  # type: ignore[arg-type]  # no hooks
    return [(step.name, step.arguments["lease_id"]) for step in plan_release(context).steps]  # type: ignore[union-attr]


def test_a_volume_that_was_left_behind_is_removed(pipeline: Pipeline) -> None:
    made = pipeline.call("volume.create", ADMIN, None, {"name": "new", "storage_id": "nfs1"}).operation
    assert made
    assert made.target_name == "new"
    assert one(pipeline, Event, operation_id=made.id).text == "volume.create new was asked for"
    with pytest.raises(ConflictError, match=rf"is creating: operation {made.id} \(volume.create\) is queued"):
        pipeline.call("volume.remove", ADMIN, "new", {})
    _give_up(pipeline, made.id)
    removed = pipeline.call("volume.remove", ADMIN, "new", {}).operation
    assert removed
    assert one(pipeline, Volume, name="new").phase is VolumePhase.REMOVING
    with pytest.raises(ConflictError, match=rf"is removing: operation {removed.id}"):
        pipeline.call("volume.remove", ADMIN, "new", {})
    _give_up(pipeline, removed.id)
    assert pipeline.call("volume.remove", ADMIN, "new", {}).status == "accepted"


def _give_up(pipeline: Pipeline, operation_id: int) -> None:
    with pipeline.database.write() as writer:
        writer.update(writer.get(Operation, operation_id), status=OperationStatus.ATTENTION)
    call(pipeline, "operation.abandon", operation_id)


@pytest.mark.parametrize(
    ("table", "lasting"),
    [
        (VOLUME_PHASES, {VolumePhase.READY}),
        (APPLIANCE_PHASES, {AppliancePhase.STOPPED, AppliancePhase.RUNNING}),
        (RESOURCE_PHASES, {Phase.NEW, Phase.IDLE, Phase.ACTIVE, Phase.OFF, Phase.UNKNOWN}),
    ],
)
def test_every_passing_state_has_a_limit_or_an_owner(table: StateTable, lasting: set[str]) -> None:
    watched = {limit.state for limit in table.deadlines} | {owner.state for owner in table.owners}
    assert watched == set(table.states) - lasting


def test_both_ways_to_an_address_skip_what_is_in_use(pipeline: Pipeline) -> None:
    ranges = AddressRange(first="10.1.0.1", last="10.1.0.4")
    with pipeline.database.write() as writer:
        writer.insert(Network(name="lan", cidr="10.1.0.0/24", gateway="10.1.0.1", machines=ranges))
    call(pipeline, "resource.create", mac="52:54:00:00:00:08", address="10.1.0.2")
    with pipeline.database.write() as writer:
        assert addresses.take(writer, writer.find(Network)[0]).address == "10.1.0.3"
    assert call(pipeline, "address.allocate", network_id="lan").address == "10.1.0.4"
    with pytest.raises(NoCapacityError):
        call(pipeline, "address.allocate", network_id="lan")


def test_an_address_belongs_to_one_resource(pipeline: Pipeline) -> None:
    with pipeline.database.write() as writer:
        lan = writer.insert(Network(name="lan", cidr="10.0.0.0/24"))
        node = writer.one(Resource, name="node")
        assert node
        card = writer.insert(Nic(resource_id=node.id, mac="52:54:00:00:00:0c"))
        writer.insert(Address(network_id=lan.id, address="10.0.0.77", nic_id=card.id))
        writer.insert(Address(network_id=lan.id, address="10.0.0.78"))
    box = {"mac": "52:54:00:00:00:07", "name": "box"}
    for address, whose in (("10.0.0.2", "resource host's"), ("10.0.0.77", "node's"), (OWN, "openQRM server's own")):
        with pytest.raises(ConflictError, match=whose) as caught:
            call(pipeline, "resource.create", **box, address=address)
        assert caught.value.field == "address"
    call(pipeline, "resource.create", **box, address="10.0.0.78")
    for address, whose in (("10.0.0.2", "resource host's"), ("10.0.0.77", "node's"), (OWN, "openQRM server's own")):
        with pytest.raises(ConflictError, match=whose):
            call(pipeline, "resource.update", "box", address=address)
    assert call(pipeline, "resource.update", "box", address="10.0.0.78", group="g").address == "10.0.0.78"
    assert call(pipeline, "resource.update", "node", address="10.0.0.77").address == "10.0.0.77"


def test_a_resource_made_by_hand_is_of_a_type_there_is(pipeline: Pipeline) -> None:
    for number, kind in enumerate(("closed", "physical"), start=7):
        where = {"mac": f"52:54:00:00:00:0{number}", "address": f"10.0.0.{number}"}
        assert call(pipeline, "resource.create", **where, type=kind).type == kind
    for kind in ("server", "toaster", ""):
        with pytest.raises(InvalidError, match="closed") as caught:
            call(pipeline, "resource.create", mac="52:54:00:00:00:0f", address="10.0.0.99", type=kind)
        assert caught.value.field == "type"


def test_the_server_may_carry_its_own_address(pipeline: Pipeline) -> None:
    with pipeline.database.write() as writer:
        writer.insert(Resource(id=SERVER_ID, name="server", type="server", phase=Phase.ACTIVE))
    assert call(pipeline, "resource.update", "server", address=OWN).address == OWN
    with pytest.raises(ConflictError, match="is resource server's"):
        call(pipeline, "resource.create", mac="52:54:00:00:00:07", address=OWN)


def test_a_machine_that_ran_something_is_forgotten_with_its_released_leases(pipeline: Pipeline) -> None:
    held = lease(pipeline)
    node = one(pipeline, Resource, name="node")
    asked = ChangeCall(held.operation_id, {"resource_id": node.id})
    with pytest.raises(ConflictError, match="resource node is used by appliance web, lease"):
        pipeline.call("resource.remove", ADMIN, "node", {})
    with pytest.raises(ConflictError, match="resource node is used by"), pipeline.database.write() as writer:
        forget_resource(writer, asked)
    with pipeline.database.write() as writer:
        leases.release(writer, ChangeCall(held.operation_id, {"lease_id": held.id}))
    assert pipeline.call("resource.remove", ADMIN, "node", {}).status == "accepted"
    with pipeline.database.write() as writer:
        forget_resource(writer, asked)
    assert one(pipeline, Resource, name="node") is None
    assert one(pipeline, Lease) is None


def test_plug_ins_hear_of_no_removal_that_is_refused_at_its_end(pipeline: Pipeline) -> None:
    node = one(pipeline, Resource, name="node")
    lease(pipeline)
    with pipeline.database.read() as reader:
        context = PlanContext(1, ADMIN, node, None, reader, {}, None, NfsDrivers())  # type: ignore[arg-type]  # no hooks
        with pytest.raises(ConflictError, match="resource node is used by"):
            plan_remove(context)


def test_who_finds_no_idle_machine_learns_what_the_machines_do_instead(pipeline: Pipeline) -> None:
    with pipeline.database.write() as writer:
        node = writer.get(Resource, one(pipeline, Resource, name="node").id)
        writer.update(node, desired=Desired.ASSIGNED)
        for number in (3, 4):
            writer.insert(Resource(name=f"busy{number}", mac=f"52:54:00:00:00:0{number}", phase=Phase.ACTIVE))
    with pytest.raises(NoCapacityError) as caught:
        pipeline.call("appliance.start", ADMIN, "web", {})
    assert str(caught.value).endswith("no machine is idle: 1 is given away already and 2 are active")
    assert "ask to wait in the queue" in (caught.value.remedy or "")
    with pipeline.database.write() as writer:
        for resource in writer.find(Resource, manual=False):
            writer.delete(Resource, resource.id)
    with pytest.raises(NoCapacityError, match="no machine is idle: none has registered"):
        pipeline.call("appliance.start", ADMIN, "web", {})


def test_an_address_that_a_resource_carries_is_not_released(pipeline: Pipeline) -> None:
    call(pipeline, "network.create", name="lan", cidr="10.0.0.0/24")
    with pipeline.database.write() as writer:
        network, node = writer.find(Network)[0], writer.find(Resource, name="node")[0]
        nic = writer.insert(Nic(resource_id=node.id, mac="52:54:00:00:00:02"))
        address = writer.insert(Address(network_id=network.id, address="10.0.0.9", nic_id=nic.id))
    with pytest.raises(ConflictError, match="carried by resource node"):
        call(pipeline, "address.release", address.id)
    call(pipeline, "resource.update", "node", address="10.0.0.10")
    call(pipeline, "address.release", address.id)
    assert one(pipeline, Address) is None


@pytest.mark.parametrize("verb", [each.verb for each in OF_OPERATIONS if each.verb in ("cancel", "resume")])
def test_who_may_not_do_an_operation_may_not_steer_it(pipeline: Pipeline, verb: str) -> None:
    status = OperationStatus.QUEUED if verb == "cancel" else OperationStatus.ATTENTION
    with pipeline.database.write() as writer:
        for name in ("box.guard", "gone.plugin"):
            writer.insert(Operation(name=name, status=status))
        ids = [each.id for each in writer.find(Operation)]
    for number in ids:
        with pytest.raises(ForbiddenError):
            pipeline.call(f"operation.{verb}", OPERATOR, number, {})
        assert pipeline.call(f"operation.{verb}", ADMIN, number, {}).status == "done"
