"""The conditions that plans wait for, by name. Each looks at our database only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.lease import Lease, LeaseState
from openqrm.domain.resource import Health, MachineOrder, Phase, Resource
from openqrm.operations.core_orders import ORDER_CONDITIONS
from openqrm.operations.workers import WORKER_CONDITIONS
from openqrm.plugin_api.changes import Progress

if TYPE_CHECKING:
    from openqrm.plugin_api.changes import ChangeCall, ConditionFunction
    from openqrm.plugin_api.records import Reader


def resource_ready(reader: Reader, call: ChangeCall) -> Progress:
    """`resource_id` is idle and speaks to us."""
    resource = reader.get(Resource, int(call.arguments["resource_id"]))
    ready = resource.phase is Phase.IDLE and resource.health is Health.OK
    return Progress(ready, f"{resource.name} is {resource.phase}, health {resource.health}")


def image_running(reader: Reader, call: ChangeCall) -> Progress:
    """The agent of `resource_id` spoke from inside the image under the lease `lease_id`."""
    resource = reader.get(Resource, int(call.arguments["resource_id"]))
    lease = reader.get(Lease, int(call.arguments["lease_id"]))
    if lease.state is LeaseState.RELEASED:
        return Progress(done=False, failed="the lease was released meanwhile")
    if resource.phase is Phase.ACTIVE:
        return Progress(done=True, percent=100, text=f"{resource.name} runs the image")
    order = reader.get(MachineOrder, int(call.arguments["order_id"]))
    if order.state in ("failed", "void"):
        return Progress(done=False, failed=f"{resource.name} could not deploy: {order.text or order.state}")
    return Progress(done=False, percent=order.progress, text=order.text or f"{resource.name} is {resource.phase}")


def machine_gone(reader: Reader, call: ChangeCall) -> Progress:
    """`resource_id` no longer runs what it ran at boot `boot_id`.

    Proof is a new boot in the initramfs (while the lease is held only a ticket takes one in), power read back as off,
    or the initramfs of that very boot which answers the order to idle: it never left, or undid what it had mounted.
    With `revocable` set, the storage can prove a revocation, so a machine that is lost to us need not be waited for.
    """
    resource = reader.get(Resource, int(call.arguments["resource_id"]))
    ordered = _newest(reader, call, "idle")
    if resource.phase is Phase.IDLE and resource.boot_id != call.arguments["boot_id"]:
        return Progress(done=True, text=f"{resource.name} is idle after a new boot", output={"proof": "new-boot"})
    if resource.phase is Phase.IDLE and ordered is not None and ordered.state == "done":
        return Progress(done=True, text=f"{resource.name} was idle already", output={"proof": "idle-already"})
    if resource.phase is Phase.OFF:
        return Progress(done=True, text=f"{resource.name} is off", output={"proof": "power-off"})
    if call.arguments.get("revocable") and resource.health is Health.LOST:
        return Progress(
            done=True, text=f"{resource.name} is lost; its access is revoked", output={"proof": "revocation"}
        )
    return Progress(done=False, text=f"{resource.name} is {resource.phase}, health {resource.health}")


def machine_back(reader: Reader, call: ChangeCall) -> Progress:
    """While a start is undone: the machine does not use the image, or its access can be revoked for good.

    It does not when this operation never ordered it to deploy, when it is off, or when it is idle and either booted
    anew since (the order follows a deployment from boot to boot) or said itself, after the order, that the deployment
    failed and is undone or that it is idle. A phase in which nothing is known proves nothing, nor does a machine that
    is only late: it may be starting the image just then.
    """
    resource = reader.get(Resource, int(call.arguments["resource_id"]))
    order = _newest(reader, call, "deploy")
    if order is None:
        return Progress(done=True, text=f"{resource.name} was not told to deploy anything")
    if resource.phase is Phase.OFF:
        return Progress(done=True, text=f"{resource.name} is off")
    if resource.phase is Phase.IDLE and (resource.boot_id != order.boot_id or _said_idle(reader, call, order)):
        return Progress(done=True, text=f"{resource.name} is idle")
    if call.arguments.get("revocable") and resource.health is Health.LOST:
        return Progress(done=True, text=f"{resource.name} is lost; its access is revoked")
    return Progress(done=False, text=f"{resource.name} is {resource.phase}")


def _newest(reader: Reader, call: ChangeCall, verb: str) -> MachineOrder | None:
    """The last order of this kind that the operation gave to the machine."""
    resource_id = int(call.arguments["resource_id"])
    found = reader.find(
        MachineOrder, order="-id", limit=1, resource_id=resource_id, operation_id=call.operation_id, verb=verb
    )
    return found[0] if found else None


def _said_idle(reader: Reader, call: ChangeCall, deploy: MachineOrder) -> bool:
    """Whether the machine, in the boot that was to deploy, said that it uses nothing."""
    idle = _newest(reader, call, "idle")
    return deploy.state == "failed" or (idle is not None and idle.id > deploy.id and idle.state == "done")


CONDITIONS: dict[str, ConditionFunction] = {
    "resource.ready": resource_ready,
    "resource.image-running": image_running,
    "resource.gone": machine_gone,
    "resource.back": machine_back,
    **ORDER_CONDITIONS,
    **WORKER_CONDITIONS,
}
