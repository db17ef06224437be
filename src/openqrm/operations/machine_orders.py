"""Orders to machines: which are given to a boot, and what happens to them when the machine answers or boots anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.appliance import Appliance, AppliancePhase
from openqrm.domain.event import Severity
from openqrm.domain.lease import Lease
from openqrm.domain.machine import Stage, meant_to_run
from openqrm.domain.operation import UNFINISHED, Operation
from openqrm.domain.resource import MachineOrder, Phase, Resource
from openqrm.operations import states
from openqrm.operations.machine_messages import Ack, Done, Log, OrderProgress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.operations.machine_messages import Message
    from openqrm.operations.machine_tokens import Session
    from openqrm.plugin_api.records import Reader, Writer

SOURCE = "machines"
OPEN = ("acknowledged", "open")
UNCLEAN = 2
"""A deployment failed and its mounts could not be undone: the machine restarts, and only its next boot is idle."""
_TEXT = 1000
_TOLD = frozenset({"transfer", "grab"})
"""Long work, whose end says what was done (bytes and seconds)."""
_FULFILLED_BY_BOOT = frozenset({"idle", "reboot", "poweroff"})


def pending(reader: Reader, resource_id: int, boot_id: str) -> Sequence[MachineOrder]:
    """What this boot has still to do, oldest first. An order without a boot is for whichever boot is there.

    A deployment that was called off by a later `idle` is no longer to do.
    """
    found = reader.find(MachineOrder, resource_id=resource_id, state__in=OPEN)
    last_idle = max((order.id for order in found if order.verb == "idle"), default=-1)
    return [
        order
        for order in found
        if order.boot_id in ("", boot_id) and not (order.verb == "deploy" and order.id < last_idle)
    ]


def deploy_pending(reader: Reader, resource: Resource) -> MachineOrder | None:
    """The deploy order this boot has still to carry out."""
    orders = pending(reader, resource.id, resource.boot_id or "")
    return next((order for order in orders if order.verb == "deploy"), None)


def boot_changed(writer: Writer, resource: Resource, boot_id: str, *, ticket: bool) -> None:
    """The machine is in its initramfs after another boot: its old orders are settled.

    With a ticket a deployment goes on (kexec, a reboot, a crash in the middle), unless it was called off, as does a
    transfer, and a machine whose appliance is meant to run is ordered to deploy it again. Without one, which only a
    machine that holds no lease or loan may be, nothing is handed over to the new boot.
    """
    deploying = False
    called_off = _last_idle(writer, resource)
    restarts = _restarts(writer, resource)
    unfinished = writer.find(MachineOrder, resource_id=resource.id, state__in=OPEN)
    for order in (*unfinished, *_failed_grabs(writer, resource)):
        if order.verb in _FULFILLED_BY_BOOT:
            writer.update(order, state="done", progress=100, text="the machine booted anew")
        elif order.verb == "deploy" and (order.id < called_off or resource.phase is Phase.RETURNING):
            writer.update(order, state="void", text="the machine was sent back to idle")
        elif order.verb == "deploy" and ticket:
            writer.update(order, state="open", boot_id=boot_id)
            deploying = True
        elif order.verb in ("transfer", "grab") and ticket and order.id > restarts.get(order.operation_id, -1):
            writer.update(order, state="open", boot_id=boot_id)
        elif order.verb == "deploy":
            writer.update(order, state="void", text="the machine came back without its boot ticket")
        else:
            writer.update(order, state="void", text="the machine booted anew")
    lease = writer.one(Lease, held_resource=resource.id)
    appliance = writer.get(Appliance, lease.appliance_id) if lease else None
    if appliance is None or not meant_to_run(lease, appliance) or appliance.phase is not AppliancePhase.RUNNING:
        return
    if ticket and not deploying:
        writer.insert(MachineOrder(resource_id=resource.id, verb="deploy", boot_id=boot_id))
        text = f"{resource.name} restarted and is deployed with {appliance.name} again"
        writer.event(text, severity=Severity.WARNING, source=SOURCE, about=resource)


def _failed_grabs(reader: Reader, resource: Resource) -> Sequence[MachineOrder]:
    """Grabs that an operation which cannot be undone still waits for: a restart tries them again."""
    found = reader.find(
        MachineOrder, resource_id=resource.id, verb="grab", state__in=["failed", "void"], operation_id__null=False
    )
    wanted = {order.operation_id for order in found}
    waiting = reader.find(Operation, id__in=sorted(wanted), status__in=sorted(UNFINISHED), forward_only=True)
    return [order for order in found if order.operation_id in {one.id for one in waiting}]


def _last_idle(reader: Reader, resource: Resource) -> int:
    """The newest order to go idle, whatever became of it: what was to be deployed before was called off by it."""
    newest = reader.find(MachineOrder, order="-id", limit=1, resource_id=resource.id, verb="idle")
    return newest[0].id if newest else -1


def _restarts(reader: Reader, resource: Resource) -> dict[int | None, int]:
    """The newest order to restart of each operation: it called off what the operation had ordered before."""
    found = reader.find(MachineOrder, resource_id=resource.id, verb="reboot", operation_id__null=False)
    return {order.operation_id: order.id for order in found}


def deployed(writer: Writer, resource: Resource, image: str) -> None:
    """The agent spoke from inside the image: the deploy order of this boot is done."""
    order = deploy_pending(writer, resource)
    if order is not None:
        writer.update(order, state="done", progress=100, text=f"running {image}")


def fail_open(writer: Writer, resource: Resource, text: str) -> None:
    """Nothing that was ordered may go on. Not `failed`: that is the machine's own word for having cleaned up."""
    for order in writer.find(MachineOrder, resource_id=resource.id, state__in=OPEN):
        writer.update(order, state="void", text=text[:_TEXT])


def _own(writer: Writer, session: Session, order_id: int) -> MachineOrder | None:
    """The order, if it is this machine's and still open; machines repeat themselves after a reconnect."""
    found = writer.find(MachineOrder, id=order_id, resource_id=session.resource_id, state__in=OPEN, limit=1)
    return next((order for order in found if order.boot_id in ("", session.boot_id)), None)


def acknowledged(writer: Writer, session: Session, message: Ack) -> None:
    """The machine has taken an order."""
    order = _own(writer, session, message.order_id)
    if order is not None and order.state == "open":
        writer.update(order, state="acknowledged")


def progressed(writer: Writer, session: Session, message: OrderProgress) -> None:
    """The machine says how far it is."""
    order = _own(writer, session, message.order_id)
    if order is not None and (order.progress, order.text) != (message.percent, message.text):
        writer.update(order, state="acknowledged", progress=message.percent, text=message.text[:_TEXT])


def done(writer: Writer, session: Session, message: Done) -> None:
    """The machine has finished an order; a failed one is an event with the machine's words."""
    order = _own(writer, session, message.order_id)
    if order is None:
        return
    resource = writer.get(Resource, session.resource_id)
    text = message.text[:_TEXT]
    if message.status != 0:
        unclean = message.status == UNCLEAN
        writer.update(order, state="void" if unclean else "failed", text=text)
        words = f"{resource.name} could not {order.verb}: {text or f'status {message.status}'}"
        writer.event(words, severity=Severity.ERROR, source=SOURCE, about=resource, order_id=order.id)
        initramfs = session.stage is Stage.INITRAMFS and not unclean
        if order.verb == "deploy" and resource.phase is Phase.DEPLOYING and initramfs:
            states.apply(writer, resource, "phase", "deploy-failed")
        return
    writer.update(order, state="done", progress=100, text=text)
    if order.verb in _TOLD:
        words = f"{resource.name} has done its order to {order.verb}: {text}"
        writer.event(words[:_TEXT], severity=Severity.INFO, source=SOURCE, about=resource, order_id=order.id)
    if order.verb == "idle" and session.stage is Stage.INITRAMFS:
        _idle_already(writer, resource, order)
    elif order.verb == "poweroff" and session.stage is Stage.INITRAMFS:
        # From inside an image the word comes before the shutdown: it is no proof that nothing is written any more.
        states.apply(writer, resource, "phase", "powered-off")


def _idle_already(writer: Writer, resource: Resource, idle: MachineOrder) -> None:
    """The machine never left its initramfs: nothing is mounted there, and what it was to deploy is called off."""
    for order in writer.find(MachineOrder, resource_id=resource.id, verb="deploy", state__in=OPEN, id__lt=idle.id):
        writer.update(order, state="void", text="the machine was sent back to idle")
    if resource.phase in (Phase.DEPLOYING, Phase.RETURNING):
        states.apply(writer, resource, "phase", "registered-initramfs")


def logged(writer: Writer, session: Session, message: Log) -> None:
    """The machine wants something remembered."""
    resource = writer.get(Resource, session.resource_id)
    writer.event(f"{resource.name}: {message.text}", severity=message.severity, source="machine", about=resource)


def answered(writer: Writer, session: Session, message: Message) -> None:
    """Apply what a machine said; heartbeats go elsewhere."""
    if isinstance(message, Ack):
        acknowledged(writer, session, message)
    elif isinstance(message, OrderProgress):
        progressed(writer, session, message)
    elif isinstance(message, Done):
        done(writer, session, message)
    elif isinstance(message, Log):
        logged(writer, session, message)
