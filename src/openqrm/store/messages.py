"""What the SQL and the dictionary store say in the same words: conflicts, missing records, new events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import ConflictError, NotFoundError
from openqrm.domain.event import Event, Severity
from openqrm.domain.model import Record, attributes
from openqrm.domain.operation import Operation
from openqrm.store import codec

if TYPE_CHECKING:
    from datetime import datetime

EVENT_TEXT = 100_000
"""Characters kept of an event's text."""


def not_found(record: type[Record], record_id: int) -> NotFoundError:
    """There is no such record."""
    return NotFoundError(f"there is no {record.entity.title.lower()} {record_id}", field="id")


def event_record(
    now: datetime, text: str, *, severity: Severity, source: str, about: Record | None, data: dict[str, Any]
) -> Event:
    """The event as it will be stored. A text too long is cut: an event must never make its transaction fail."""
    kept = codec.as_json(data)
    operation_id = kept.pop("operation_id", about.id if isinstance(about, Operation) else None)
    return Event(
        time=now,
        severity=severity,
        source=source,
        actor=str(kept.pop("actor", "system"))[:200],
        subject_kind=type(about).entity.name if about is not None else "",
        subject_id=about.id if about is not None else None,
        operation_id=operation_id,
        text=text[:EVENT_TEXT].replace("\x00", "\ufffd").encode("utf-8", "replace").decode(),
        data=kept,
    )


def duplicate(record: type[Record], fields: tuple[str, ...], values: dict[str, Any]) -> ConflictError:
    """Another record has the same values in fields that are unique (together)."""
    attrs = attributes(record)
    known = [name for name in fields if name in attrs]
    shown = ", ".join(f"{name} {values.get(name)}" for name in known if not attrs[name].secret)
    named = next((name for name in known if not attrs[name].ref), known[0] if known else None)
    article = f"there is already another {record.entity.title.lower()}"
    return ConflictError(f"{article} with {shown}" if shown else article, field=named)


def missing_reference(field: str, target: type[Record], wanted: int) -> ConflictError:
    """A field points to a record that does not exist."""
    return ConflictError(f"{field}: there is no {target.entity.title.lower()} {wanted}", field=field)


def in_use(record: Record, by: Record, field: str) -> ConflictError:
    """A record cannot go because another points to it."""
    return ConflictError(
        f"{codec.label(record)} is used by {codec.label(by)} ({field})",
        field="id",
        remedy=f"remove or change {codec.label(by)} first",
    )
