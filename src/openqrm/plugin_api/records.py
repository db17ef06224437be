"""Reading and changing our database, as planners, changes and hooks see it. Synchronous; one transaction.

There are two implementations: SQL and a dictionary, under one conformance suite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from openqrm.domain.event import Severity
    from openqrm.domain.model import R

OPERATORS = ("eq", "ne", "lt", "le", "gt", "ge", "in", "null")
"""`find` takes conditions as `field=value` or `field__operator=value`."""


class Reader(Protocol):
    """Consistent reads within one transaction."""

    @property
    def now(self) -> datetime:
        """The time of this transaction, UTC; decisions take it from here and never from a clock."""

    def get(self, record: type[R], record_id: int) -> R:
        """The record; NotFoundError."""

    def one(self, record: type[R], **conditions: Any) -> R | None:
        """The only record that meets the conditions, or None; ValueError when there are several."""

    def find(self, record: type[R], *, order: str = "id", limit: int | None = None, **conditions: Any) -> Sequence[R]:
        """The records that meet all conditions; `order` is a field, with `-` in front for descending."""

    def columns(self, record: type[R], names: Sequence[str], **conditions: Any) -> Sequence[tuple[Any, ...]]:
        """As `find`, by id, but only these fields of each record: for looking at very many of them."""

    def count(self, record: type[R], **conditions: Any) -> int:
        """How many there are."""


class Writer(Reader, Protocol):
    """Reads and changes within one transaction; constraint violations raise ConflictError naming the field."""

    def reserve(self, record: type[R], *, order: str = "id", limit: int = 1, **conditions: Any) -> Sequence[R]:
        """As `find`, and the rows are held until the transaction ends.

        Rows that another transaction holds are passed over; only when nothing else is left does it wait for them and
        look at them again (PostgreSQL: FOR UPDATE SKIP LOCKED, then FOR UPDATE). SQLite has one writer anyway.
        """

    def insert(self, record: R) -> R:
        """Store a new record; it comes back with id and times."""

    def update(self, record: R, **changes: Any) -> R:
        """Change fields; it comes back as stored. Validates as a new record would."""

    def delete(self, record: type[R], record_id: int) -> None:
        """Remove a record; NotFoundError. ConflictError when another one points to it."""

    def event(self, text: str, *, severity: Severity, source: str, about: R | None = None, **data: Any) -> None:
        """Log an event, seen when the transaction commits."""

    def put_secret(self, key: str, value: str) -> None:
        """Store a secret, encrypted at rest."""

    def drop_secret(self, key: str) -> None:
        """Forget a secret; nothing happens when it is not there."""
