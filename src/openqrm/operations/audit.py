"""What is written down about every change: who asked for what, with secrets masked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.event import Severity
from openqrm.domain.operation import Operation as OperationRecord
from openqrm.operations.arguments import argument_attributes, given
from openqrm.plugin_api.values import MASK

if TYPE_CHECKING:
    from openqrm.domain.model import Record
    from openqrm.plugin_api.operation import Call, Operation
    from openqrm.plugin_api.records import Writer


def label(record: Record) -> str:
    """What a person calls the record."""
    return str(getattr(record, record.entity.label, record.id))[:200]


def masked(call: Call) -> dict[str, Any]:
    """The arguments that were given as JSON data, secret ones masked."""
    secret = {name for name, attr in argument_attributes(type(call.arguments)).items() if attr.secret}
    plain: dict[str, Any] = call.arguments.model_dump(mode="json", include=set(given(call.arguments)))
    return {name: MASK if name in secret and value is not None else value for name, value in plain.items()}


def row(call: Call, key: str | None) -> OperationRecord:
    """The call as an operation's row, not stored yet. One without a target is named by what it makes."""
    record = call.target
    return OperationRecord(
        name=call.operation,
        target_kind=record.entity.name if record else "",
        target_id=record.id if record else None,
        target_name=named(call),
        arguments=masked(call),
        actor=call.actor.name,
        idempotency_key=key,
    )


def named(call: Call) -> str:
    """What the call is about: its target, else the name in its arguments; empty when there is neither."""
    if call.target is not None:
        return label(call.target)
    return str(masked(call).get("name") or "")[:200]


def masked_row(operation: Operation, row: OperationRecord) -> dict[str, Any]:
    """A row's arguments in the form of `masked`: a secret's reference is a mask again."""
    secret = {name for name, attr in argument_attributes(operation.arguments).items() if attr.secret}
    return {name: MASK if name in secret and value is not None else value for name, value in row.arguments.items()}


def same_target(row: OperationRecord, target: int | str | None) -> bool:
    """Whether a row's call had this target, which may be gone by now."""
    if target is None or row.target_id is None:
        return target is None and row.target_id is None
    return str(target) in {str(row.target_id), row.target_name}


def asked(writer: Writer, call: Call, *, operation_id: int) -> None:
    """An operation was queued."""
    _write(writer, call, f"{call.operation}{_of(call)} was asked for", call.target, operation_id)


def done(writer: Writer, call: Call, record: Record | None, *, operation_id: int | None) -> None:
    """Our database was changed at once."""
    subject = record if record is not None else call.target
    of = f" {label(record)}" if record is not None and call.target is None else _of(call)
    _write(writer, call, f"{call.operation}{of}", subject, operation_id)


def _of(call: Call) -> str:
    name = named(call)
    return f" {name}" if name else ""


def _write(writer: Writer, call: Call, text: str, subject: Record | None, operation_id: int | None) -> None:
    fields = {"actor": call.actor.name, "operation": call.operation, "arguments": masked(call)}
    link = {} if operation_id is None else {"operation_id": operation_id}
    writer.event(text, severity=Severity.INFO, source="operations", about=subject, **fields, **link)
