"""The changes of our own database that plans are made of, by name.

Each runs in the transaction that records its step as done, so state and journal never disagree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.entities import ENTITIES
from openqrm.domain.event import Severity
from openqrm.domain.operation import Operation
from openqrm.domain.resource import MachineOrder, Resource
from openqrm.engine.plugins.entities import all_entities
from openqrm.operations import kernel, leases, states
from openqrm.operations.core_plugins import installed
from openqrm.operations.grants import GRANT_CHANGES
from openqrm.operations.loans import LOAN_CHANGES
from openqrm.operations.storage_audit import REPORT_CHANGES
from openqrm.operations.workers import WORKER_CHANGES

if TYPE_CHECKING:
    from openqrm.domain.model import Record
    from openqrm.plugin_api.changes import ChangeCall, ChangeFunction
    from openqrm.plugin_api.records import Writer


def _kind(call: ChangeCall) -> type[Record]:
    """The core's entities, and those of installed plug-ins."""
    name: str = call.arguments["entity"]
    return ENTITIES.get(name) or all_entities(installed().plugins)[name]


def _record(writer: Writer, call: ChangeCall) -> Record:
    return writer.get(_kind(call), int(call.arguments["id"]))


def apply_state(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`entity`, `id`, `field` (default phase), `event`; further `set` fields are changed with it."""
    record = _record(writer, call)
    field = call.arguments.get("field", "phase")
    changed = states.apply(writer, record, field, call.arguments["event"])
    extra = {name: writer.now if value == "now" else value for name, value in call.arguments.get("set", {}).items()}
    if extra:
        writer.update(changed, **extra)
    return {"before": str(getattr(record, field))}


def set_fields(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`entity`, `id`, `set`: the output keeps what was there before."""
    record = _record(writer, call)
    values = call.arguments["set"]
    before = record.model_dump(mode="json", include=set(values))
    writer.update(record, **values)
    return {"before": before}


def restore_fields(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """Undo of `record.set`."""
    writer.update(_record(writer, call), **call.output["before"])
    return {}


def create(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`entity`, `values`: the output has the new `id`."""
    kind = _kind(call)
    return {"id": writer.insert(kind.model_validate(call.arguments["values"])).id}


def uncreate(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """Undo of `record.create`."""
    writer.delete(_kind(call), int(call.output["id"]))
    return {}


def delete(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`entity`, `id`; one that is gone already stays gone."""
    kind, record_id = _kind(call), int(call.arguments["id"])
    if writer.find(kind, limit=1, id=record_id):
        writer.delete(kind, record_id)
    return {}


def issue_order(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`resource_id`, `verb`, optional `details`: an order for the machine's present boot, sent when this commits."""
    resource = writer.get(Resource, int(call.arguments["resource_id"]))
    order = writer.insert(
        MachineOrder(
            resource_id=resource.id,
            operation_id=call.operation_id,
            verb=call.arguments["verb"],
            boot_id=resource.boot_id or "",
            details=dict(call.arguments.get("details", {})),
        )
    )
    return {"order_id": order.id, "boot_id": order.boot_id}


def recall_order(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """Undo of a `deploy` order: order the machine back to idle, unless it reported failure or booted anew.

    Also when it has not answered yet: it may have begun. One that did not begin says at once that it is idle.
    """
    order = writer.get(MachineOrder, int(call.output["order_id"]))
    resource = writer.get(Resource, order.resource_id)
    if order.state == "failed" or resource.boot_id != order.boot_id:
        return {"sent_back": False}
    if order.state == "open":
        writer.update(order, state="void")
    writer.insert(
        MachineOrder(
            resource_id=resource.id, operation_id=call.operation_id, verb="idle", boot_id=resource.boot_id or ""
        )
    )
    return {"sent_back": True}


def commit(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """The operation only goes forward from here on: what it has done is in use, and is not taken back any more."""
    writer.update(writer.get(Operation, call.operation_id), forward_only=True)
    return {}


def log_event(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`text`, `severity`, `entity`, `id`."""
    about = _record(writer, call) if "entity" in call.arguments else None
    severity = Severity(call.arguments.get("severity", "info"))
    writer.event(call.arguments["text"], severity=severity, source="operation", about=about)
    return {}


CHANGES: dict[str, ChangeFunction] = {
    **GRANT_CHANGES,
    "state.apply": apply_state,
    "record.set": set_fields,
    "record.restore": restore_fields,
    "record.create": create,
    "record.uncreate": uncreate,
    "record.delete": delete,
    "order.issue": issue_order,
    "order.recall": recall_order,
    "event.log": log_event,
    "appliance.forget": leases.forget_appliance,
    "kernel.offer": kernel.offer,
    "kernel.withdraw": kernel.withdraw,
    "lease.acquire": leases.acquire,
    "lease.release": leases.release,
    "lease.undo-acquire": leases.undo_acquire,
    **LOAN_CHANGES,
    **WORKER_CHANGES,
    **REPORT_CHANGES,
    "operation.commit": commit,
    "resource.take": leases.take_resource,
    "resource.give-back": leases.give_back_resource,
}
