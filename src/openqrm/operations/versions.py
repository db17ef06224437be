"""The version of a record as a caller saw it, so that a change can be refused when someone else was faster."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from openqrm.domain.errors import ConflictError
from openqrm.domain.model import public

if TYPE_CHECKING:
    from openqrm.domain.model import Record


class ChangedError(ConflictError):
    """The record is no longer what the caller saw."""

    code = "changed"
    status = 412


def version_of(record: Record) -> str:
    """A short text that differs whenever what a caller can see of the record differs."""
    seen = json.dumps(public(record), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(seen.encode(), digest_size=12).hexdigest()


def require(record: Record, versions: tuple[str, ...]) -> None:
    """ChangedError unless the record has one of these versions; none given: nothing is required."""
    if versions and "*" not in versions and version_of(record) not in versions:
        raise ChangedError(
            f"{record.entity.name} {record.id} was changed since it was read", remedy="read it again and decide anew"
        )
