"""What stands in the way of a removal: which records point to the one that is to go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import ConflictError
from openqrm.operations.audit import label

if TYPE_CHECKING:
    from openqrm.domain.model import Record
    from openqrm.plugin_api.records import Reader


def refuse(reader: Reader, record: Record, *users: tuple[type[Record], str], remedy: str | None = None) -> None:
    """ConflictError naming the first holders; `users` are pairs of a record class and its field that points here."""
    holders: list[str] = []
    for kind, field in users:
        condition: dict[str, Any] = {field: record.id}
        holders += [f"{kind.entity.name} {label(found)}" for found in reader.find(kind, limit=3, **condition)]
    if holders:
        raise ConflictError(
            f"{record.entity.name} {label(record)} is used by {', '.join(holders[:5])}",
            remedy=remedy or "remove or change what uses it first",
        )
