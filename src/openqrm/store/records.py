"""Reader and Writer over SQL. See `plugin_api.records` for what they promise."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, func, insert, select

from openqrm.domain.errors import ConflictError, NotFoundError
from openqrm.domain.event import Event, Severity
from openqrm.domain.resource import SERVER_ID
from openqrm.store import clauses, codec, statements
from openqrm.store.clauses import clause, sorting
from openqrm.store.commits import Commit
from openqrm.store.faults import DuplicateFault, ReferenceFault, translated
from openqrm.store.messages import duplicate, event_record, in_use, missing_reference, not_found
from openqrm.store.words import words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.sql.elements import ColumnElement

    from openqrm.domain.model import R, Record
    from openqrm.store.lists import Checked, Page
    from openqrm.store.secrets import Keyring
    from openqrm.store.tables import Projection, Schema


class SqlReader:
    """Consistent reads within one transaction. `connection` is for the store's other modules, such as the journal."""

    def __init__(self, connection: Connection, schema: Schema, keyring: Keyring, now: datetime) -> None:
        self.connection = connection
        self.schema = schema
        self._keyring = keyring
        self._now = now

    @property
    def now(self) -> datetime:
        """The time of this transaction, UTC."""
        return self._now

    def get(self, record: type[R], record_id: int) -> R:
        """The record; NotFoundError."""
        if not 0 <= record_id <= codec.MAX_ID:
            raise not_found(record, record_id)
        with translated():
            row = self.connection.execute(statements.getting(self.schema[record]), {statements.KEY: record_id}).first()
        if row is None:
            raise not_found(record, record_id)
        return self.decode(record, row)

    def one(self, record: type[R], **conditions: Any) -> R | None:
        """The only record that meets the conditions, or None; ValueError when there are several."""
        found = self.find(record, limit=2, **conditions)
        if len(found) > 1:
            raise ValueError(f"several {record.entity.plural} meet {conditions}")
        return found[0] if found else None

    def find(self, record: type[R], *, order: str = "id", limit: int | None = None, **conditions: Any) -> Sequence[R]:
        """The records that meet all conditions; empty fields sort before all others."""
        projection = self.schema[record]
        statement = select(projection.table).where(*self._clauses(projection, conditions))
        statement = statement.order_by(*sorting(projection, *codec.order(record, order)))
        if limit is not None:
            statement = statement.limit(limit)
        with translated():
            rows = self.connection.execute(statement).all()
        return [self.decode(record, row) for row in rows]

    def columns(self, record: type[R], names: Sequence[str], **conditions: Any) -> Sequence[tuple[Any, ...]]:
        """As `find`, by id, but only these fields of each record."""
        projection = self.schema[record]
        statement = select(*(projection.table.c[name] for name in names)).where(*self._clauses(projection, conditions))
        with translated():
            rows = self.connection.execute(statement.order_by(projection.table.c.id)).all()
        return codec.decode_columns(record, tuple(names), rows)

    def count(self, record: type[R], **conditions: Any) -> int:
        """How many there are."""
        projection = self.schema[record]
        statement = select(func.count()).select_from(projection.table)
        with translated():
            return int(self.connection.execute(statement.where(*self._clauses(projection, conditions))).scalar_one())

    def get_secret(self, key: str) -> str:
        """A stored secret, in clear; NotFoundError. Only for the engine, at the moment a step acts."""
        table = self.schema.secrets
        with translated():
            row = self.connection.execute(select(table.c.key_id, table.c.sealed).where(table.c.key == key)).first()
        if row is None:
            raise NotFoundError(f"there is no secret {key}", field="key")
        return self._keyring.unseal(key, row.key_id, row.sealed)

    def page(self, record: type[R], query: Checked) -> Page[R]:
        """See `lists.list_records`."""
        with translated():
            return clauses.page(self, record, query)

    def decode(self, record: type[R], row: Any) -> R:
        """A record from a row of all columns of its table."""
        return codec.decode(record, dict(zip(self.schema[record].fields, row, strict=True)))

    @staticmethod
    def _clauses(projection: Projection, given: dict[str, Any]) -> list[ColumnElement[bool]]:
        return [clause(projection, condition) for condition in codec.conditions(projection.record, given)]


class SqlWriter(SqlReader):
    """Reads and changes within one transaction."""

    def __init__(self, connection: Connection, schema: Schema, keyring: Keyring, now: datetime) -> None:
        super().__init__(connection, schema, keyring, now)
        self._touched: set[tuple[str, int]] = set()
        self._events: list[Event] = []

    def reserve(self, record: type[R], *, order: str = "id", limit: int = 1, **conditions: Any) -> Sequence[R]:
        """As `find`: writers come one after the other, so every row is held from the start of the transaction."""
        return self.find(record, order=order, limit=limit, **conditions)

    def insert(self, record: R) -> R:
        """Store a new record; it comes back with id and times. The server itself may bring its id 0."""
        kind = type(record)
        projection = self.schema[kind]
        values = codec.encode(record)
        if values["id"] == codec.NEW:
            del values["id"]
        elif values["id"] != SERVER_ID:
            raise ValueError("ids are given by the store")
        values |= {"created_at": self._now, "updated_at": self._now}
        row = self._guarded(
            projection,
            statements.inserting(projection),
            values,
            values,
            guarded=bool(projection.unique or projection.refs),
        )
        stored = self.decode(kind, row)
        self._remember_words(projection, stored.id, values)
        self.touch(kind.entity.name, stored.id)
        return stored

    def update(self, record: R, **changes: Any) -> R:
        """Change fields; it comes back as stored. Only the named fields are written."""
        kind = type(record)
        projection = self.schema[kind]
        values = codec.encode(codec.changed(record, changes), tuple(changes))
        values["updated_at"] = self._now
        row = self._guarded(
            projection,
            statements.updating(projection, tuple(values)),
            {**values, statements.KEY: record.id},
            {**record.__dict__, **values},
            guarded=projection.constrained(changes),
        )
        if row is None:
            raise not_found(kind, record.id)
        stored = self.decode(kind, row)
        if not set(projection.searched).isdisjoint(changes):
            self._forget_words(kind.entity.name, stored.id)
            self._remember_words(projection, stored.id, {name: getattr(stored, name) for name in projection.searched})
        self.touch(kind.entity.name, stored.id)
        return stored

    def delete(self, record: type[R], record_id: int) -> None:
        """Remove a record; NotFoundError. ConflictError naming one that points to it."""
        table = self.schema[record].table
        name = record.entity.name
        guarded = bool(self.schema.referring(name))
        try:
            with translated(), self._savepoint(guarded=guarded):
                gone = self.connection.execute(delete(table).where(table.c.id == record_id)).rowcount
        except ReferenceFault as error:
            raise self._in_use(record, record_id) from error
        if not gone:
            raise not_found(record, record_id)
        if self.schema[record].searched:
            self._forget_words(name, record_id)
        self.touch(name, record_id)

    def event(self, text: str, *, severity: Severity, source: str, about: Record | None = None, **data: Any) -> None:
        """Log an event, seen when the transaction commits. `actor` and `operation_id` in `data` fill those fields."""
        self._events.append(event_record(self._now, text, severity=severity, source=source, about=about, data=data))

    def put_secret(self, key: str, value: str) -> None:
        """Store a secret, encrypted at rest."""
        key_id, sealed = self._keyring.seal(key, value)
        self.drop_secret(key)
        row = {"key": key, "key_id": key_id, "sealed": sealed, "updated_at": self._now}
        with translated():
            self.connection.execute(insert(self.schema.secrets), row)

    def drop_secret(self, key: str) -> None:
        """Forget a secret; nothing happens when it is not there."""
        table = self.schema.secrets
        with translated():
            self.connection.execute(delete(table).where(table.c.key == key))

    def touch(self, entity: str, record_id: int) -> None:
        """Say that a record changed, for what was written through `connection`."""
        self._touched.add((entity, record_id))

    def finish(self) -> Commit:
        """Write what waits for the end of the transaction. Called once, by the database, just before the commit."""
        stored: list[Event] = []
        projection = self.schema.projections.get(Event)
        if self._events and projection is not None:
            rows = [codec.encode(event) for event in self._events]
            for row in rows:
                del row["id"]
                row |= {"created_at": self._now, "updated_at": self._now}
            statement = insert(projection.table).returning(*projection.table.c, sort_by_parameter_order=True)
            with translated():
                found = self.connection.execute(statement, rows).all()
            stored = [self.decode(Event, row) for row in found]
            for event in stored:
                self._remember_words(projection, event.id, {"text": event.text})
                self.touch(Event.entity.name, event.id)
        return Commit(frozenset(self._touched), tuple(stored))

    def _savepoint(self, *, guarded: bool) -> Any:
        """PostgreSQL gives up a whole transaction after an error; a savepoint limits that to the statement."""
        if guarded and self.connection.dialect.name == "postgresql":
            return self.connection.begin_nested()
        return nullcontext()

    def _guarded(
        self,
        projection: Projection,
        statement: Any,
        parameters: dict[str, Any],
        values: dict[str, Any],
        *,
        guarded: bool,
    ) -> Any:
        """Run a statement that may violate a constraint; `values` are the row's as it would be, for the message."""
        try:
            with translated(), self._savepoint(guarded=guarded):
                return self.connection.execute(statement, parameters).first()
        except DuplicateFault as error:
            raise duplicate(projection.record, self._violated(projection, error), values) from error
        except ReferenceFault as error:
            raise self._dangling(projection, values) from error

    @staticmethod
    def _violated(projection: Projection, fault: DuplicateFault) -> tuple[str, ...]:
        if fault.constraint is None:
            return fault.columns
        prefix = f"uq_{projection.table.name}_"
        names = {prefix + "_".join(fields): fields for fields in projection.unique}
        return names.get(fault.constraint, ("id",))

    def _dangling(self, projection: Projection, values: dict[str, Any]) -> ConflictError:
        for field, target in projection.refs.items():
            wanted = values.get(field)
            if wanted is not None:
                table = self.schema.table(target)
                if self.connection.execute(select(table.c.id).where(table.c.id == wanted)).first() is None:
                    return missing_reference(field, self.schema.records[target], wanted)
        return ConflictError(f"{projection.record.entity.title} points to something that does not exist")

    def _in_use(self, record: type[Record], record_id: int) -> ConflictError:
        for projection, field in self.schema.referring(record.entity.name):
            table = projection.table
            row = self.connection.execute(select(table).where(table.c[field] == record_id).limit(1)).first()
            if row is not None:
                return in_use(self.get(record, record_id), self.decode(projection.record, row), field)
        return ConflictError(f"{record.entity.title.lower()} {record_id} is in use")

    def _remember_words(self, projection: Projection, record_id: int, values: dict[str, Any]) -> None:
        found = sorted(words(values, projection.searched))
        if found:
            dialect = self.connection.dialect.name
            given = json.dumps(found) if dialect == "sqlite" else found
            parameters = (projection.record.entity.name, record_id, given)
            with translated():
                self.connection.exec_driver_sql(statements.REMEMBER_WORDS[dialect], parameters)

    def _forget_words(self, entity: str, record_id: int) -> None:
        statement = statements.FORGET_WORDS.format(statements.MARKS[self.connection.dialect.name])
        with translated():
            self.connection.exec_driver_sql(statement, (entity, record_id))
