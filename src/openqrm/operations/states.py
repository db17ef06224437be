"""The one way a state field changes: through its table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openqrm.domain.model import R
    from openqrm.plugin_api.records import Writer


def apply(writer: Writer, record: R, field: str, event: str) -> R:
    """Move `field` of a record by an event; ConflictError when its table has no row for that.

    A field named `<field>_since` is set to the transaction's time when the state really changes.
    """
    table = type(record).entity.states[field]
    before = str(getattr(record, field))
    after = table.after(before, event)
    changes: dict[str, object] = {field: after}
    since = f"{field}_since"
    if since in type(record).model_fields and after != before:
        changes[since] = writer.now
    return writer.update(record, **changes)
