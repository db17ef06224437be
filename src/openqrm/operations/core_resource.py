"""Resources: closed boxes made by hand, changes, orders to machines, removal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from openqrm.domain.errors import ConflictError
from openqrm.domain.model import Attr, Mac, Name
from openqrm.domain.network import plain_ip
from openqrm.domain.resource import SERVER_ID, Phase, Resource
from openqrm.operations import addresses, depending
from openqrm.operations.arguments import given, updating
from openqrm.operations.core_orders import refuse_used
from openqrm.plugin_api.operation import Arguments, Operation
from openqrm.plugin_api.operation import Phase as Planned
from openqrm.plugin_api.steps import Change, Irreversible, Plan, Wait
from openqrm.plugin_api.values import Output

if TYPE_CHECKING:
    from openqrm.operations.pipeline import CoreCall
    from openqrm.plugin_api.operation import Call, PlanContext
    from openqrm.plugin_api.records import Reader, Writer


IpAddress = Annotated[str, Field(min_length=2, max_length=45), AfterValidator(plain_ip)]


class ResourceCreate(Arguments):
    """A closed box known by MAC and address: never monitored, its state is always unknown."""

    mac: Annotated[Mac, Attr("MAC address", help="of the network card it is known by")]
    address: Annotated[IpAddress, Attr("Address", help="in the management network")]
    name: Annotated[Name | None, Attr("Name", help="empty: made from the MAC address")] = None
    type: Annotated[
        Literal["closed", "physical"],
        Attr("Type", help="physical: a machine with a system of its own; never monitored either way"),
    ] = "closed"
    group: Annotated[str, Field(max_length=63), Attr("Group")] = ""


HostKey = Annotated[str, Field(max_length=4000, pattern=r"^(ssh|ecdsa)-[a-z0-9-]+ [A-Za-z0-9+/]+={0,3}( [ -~]*)?$")]

ResourceUpdate = updating(
    Resource,
    without=("type", "address"),
    address=(Annotated[IpAddress | None, Attr("Address", help="in the management network")], None),
    ssh_host_keys=(
        Annotated[
            tuple[HostKey, ...] | None,
            Field(max_length=16),
            Attr("SSH host keys", help="of a resource made by hand; []: the one it shows next is trusted"),
        ],
        None,
    ),
)


def create(writer: Writer, call: CoreCall) -> Resource:
    """A resource nobody will ever hear from by itself."""
    asked: ResourceCreate = call.arguments
    _refuse_taken(writer, call, asked.address, None, asked.mac)
    resource = writer.insert(
        Resource(
            name=asked.name or f"resource-{asked.mac.replace(':', '')}",
            type=asked.type,
            mac=asked.mac,
            address=asked.address,
            group=asked.group,
            manual=True,
            phase=Phase.UNKNOWN,
            phase_since=writer.now,
        )
    )
    call.queue("resource.announce", resource.id)
    return resource


def update(writer: Writer, call: Call) -> Resource:
    """Name, group and address of a resource; the host keys of one made by hand."""
    resource = _target(call)
    changes = given(call.arguments)
    if "ssh_host_keys" in changes:
        if not resource.manual:
            raise ConflictError(f"{resource.name} tells its host keys at every boot", field="ssh_host_keys")
        changes["ssh_host_keys"] = changes["ssh_host_keys"] or ()
    if changes.get("address", resource.address) != resource.address:
        depending.refuse_moving(writer, resource)
        if changes["address"] is not None:
            _refuse_taken(writer, call, changes["address"], resource.id, resource.mac)
    return writer.update(resource, **changes)


def _refuse_taken(writer: Writer, call: Call, address: str, resource_id: int | None, mac: str | None) -> None:
    own = str(call.settings.get("address", ""))
    addresses.refuse_taken(writer, address, controller=own, resource_id=resource_id, mac=mac)


def plan_announce(context: PlanContext) -> Plan:
    """What the plug-ins do when a resource joins."""
    return Plan(steps=context.hooks.resource("add", _resource(context)))


def admit_remove(reader: Reader, call: Call) -> Plan:
    """Refuse while anything uses the resource."""
    refuse_used(reader, _target(call))
    return Plan()


def plan_remove(context: PlanContext) -> Plan:
    """The plug-ins forget it, then we do. What came to use it since the call is refused before they hear of it."""
    resource = _resource(context)
    refuse_used(context.read, resource)
    forget = Change(
        name="forget",
        title=f"Forget {resource.name}",
        change="resource.forget",
        arguments={"resource_id": resource.id},
        undo=Irreversible(reason="a forgotten resource registers anew when it boots"),
    )
    return Plan(steps=(*context.hooks.resource("remove", resource), forget))


def plan_reboot(context: PlanContext) -> Plan:
    """A clean restart."""
    return _ordered(context, "reboot")


def plan_poweroff(context: PlanContext) -> Plan:
    """A clean shutdown."""
    return _ordered(context, "poweroff")


def _ordered(context: PlanContext, verb: str) -> Plan:
    """One order over the machine's stream, and its answer awaited."""
    resource = _resource(context)
    order = Change(
        name="order",
        title=f"Order {verb} of {resource.name}",
        change="order.issue",
        arguments={"resource_id": resource.id, "verb": verb},
        undo=Irreversible(reason="a machine that was told cannot be untold"),
    )
    done = Wait(
        name="done",
        title=f"{resource.name} does it",
        condition="order.done",
        arguments={"order_id": Output(step="order", field="order_id").model_dump(mode="json")},
        timeout=600,
    )
    return Plan(steps=(order, done))


def admit_order(reader: Reader, call: Call) -> Plan:
    """Refuse what no order can reach."""
    del reader
    resource = _target(call)
    if resource.manual:
        raise ConflictError(f"{resource.name} was made by hand: it takes no orders", remedy="switch it by hand")
    if resource.id == SERVER_ID:
        raise ConflictError("resource 0 is the openQRM server itself", remedy="use the server's own commands")
    return Plan()


def _target(call: Call) -> Resource:
    assert isinstance(call.target, Resource)  # noqa: S101  # the declaration's target
    return call.target


def _resource(context: PlanContext) -> Resource:
    assert isinstance(context.target, Resource)  # noqa: S101  # the declaration's target
    return context.read.get(Resource, context.target.id)


_HERE = "openqrm.operations.core_resource"
_REACHABLE = frozenset({Phase.IDLE, Phase.ACTIVE})


def _order(verb: str, title: str, summary: str) -> Operation:
    return Operation(
        name=f"resource.{verb}",
        title=title,
        summary=summary,
        target=Resource,
        allowed={"phase": _REACHABLE},
        destroys=True,
        admit=f"{_HERE}:admit_order",
        phases=(Planned("order", f"{_HERE}:plan_{verb}"),),
        forward_only=True,
    )


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="resource.create",
        title="Add a resource by hand",
        summary="Add a closed box known by its MAC and address",
        arguments=ResourceCreate,
        creates=Resource,
        act=f"{_HERE}:create",
    ),
    Operation(
        name="resource.update",
        title="Change a resource",
        summary="Change the name, group or address of a resource, or the host keys of one made by hand",
        target=Resource,
        arguments=ResourceUpdate,
        act=f"{_HERE}:update",
    ),
    Operation(
        name="resource.remove",
        title="Remove a resource",
        summary="Forget a resource; it registers anew when it boots again",
        target=Resource,
        destroys=True,
        admit=f"{_HERE}:admit_remove",
        phases=(Planned("remove", f"{_HERE}:plan_remove"),),
        forward_only=True,
    ),
    _order("reboot", "Reboot a resource", "Tell a machine to restart cleanly"),
    _order("poweroff", "Power a resource off", "Tell a machine to shut down cleanly"),
    Operation(
        name="resource.announce",
        title="Announce a resource",
        summary="Tell the started plug-ins that a resource joined",
        target=Resource,
        phases=(Planned("announce", f"{_HERE}:plan_announce"),),
        internal=True,
    ),
)
