"""A database of dictionaries with the semantics of the SQL ones, for fast tests and the simulator.

Tables are copied before a transaction changes them, so a reader keeps what it began with and a rollback is to forget.
"""

from __future__ import annotations

import copy
import operator
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openqrm.domain.entities import ENTITIES
from openqrm.domain.errors import NotFoundError, UnavailableError
from openqrm.domain.resource import SERVER_ID
from openqrm.store import codec
from openqrm.store.clock import utc_now
from openqrm.store.commits import Commit, Listeners
from openqrm.store.lists import COUNT_CAP, finish
from openqrm.store.messages import duplicate, event_record, in_use, missing_reference, not_found
from openqrm.store.words import searched, terms, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from openqrm.domain.event import Event, Severity
    from openqrm.domain.model import R, Record
    from openqrm.plugin_api.plugin import Plugin
    from openqrm.plugin_api.records import Writer
    from openqrm.store.clock import Clock
    from openqrm.store.lists import Checked, Page

WAIT_SECONDS = 30


@dataclass
class Rows:
    """One table: records by id, what is taken in each set of unique fields, and the highest id ever given."""

    records: dict[int, Any] = field(default_factory=dict)
    taken: dict[tuple[str, ...], dict[tuple[Any, ...], int]] = field(default_factory=dict)
    last: int = 0

    def copy(self) -> Rows:
        """An independent table with the same records."""
        return Rows(dict(self.records), {fields: dict(keys) for fields, keys in self.taken.items()}, self.last)


@dataclass(frozen=True)
class Tables:
    """The content of a database at one moment. Never changed once it is current."""

    rows: Mapping[str, Rows]
    secrets: Mapping[str, str]


class MemoryReader:
    """Reads of one moment."""

    def __init__(self, tables: Tables, records: Mapping[str, type[Record]], now: datetime) -> None:
        self.records = records
        self._rows = dict(tables.rows)
        self._secrets = dict(tables.secrets)
        self._now = now

    @property
    def now(self) -> datetime:
        """The time of this transaction, UTC."""
        return self._now

    def get(self, record: type[R], record_id: int) -> R:
        """The record; NotFoundError."""
        found: R | None = self._rows[record.entity.name].records.get(record_id)
        if found is None:
            raise not_found(record, record_id)
        return _own(found)

    def one(self, record: type[R], **conditions: Any) -> R | None:
        """The only record that meets the conditions, or None; ValueError when there are several."""
        found = self.find(record, limit=2, **conditions)
        if len(found) > 1:
            raise ValueError(f"several {record.entity.plural} meet {conditions}")
        return found[0] if found else None

    def find(self, record: type[R], *, order: str = "id", limit: int | None = None, **conditions: Any) -> Sequence[R]:
        """The records that meet all conditions; empty fields sort before all others."""
        name, descending = codec.order(record, order)
        found = self.matching(record, codec.conditions(record, conditions))
        found.sort(key=lambda one: sort_key(one, name), reverse=descending)
        return [_own(one) for one in (found if limit is None else found[:limit])]

    def columns(self, record: type[R], names: Sequence[str], **conditions: Any) -> Sequence[tuple[Any, ...]]:
        """As `find`, by id, but only these fields of each record."""
        return [tuple(getattr(one, name) for name in names) for one in self.find(record, **conditions)]

    def count(self, record: type[R], **conditions: Any) -> int:
        """How many there are."""
        return len(self.matching(record, codec.conditions(record, conditions)))

    def get_secret(self, key: str) -> str:
        """A stored secret, in clear; NotFoundError."""
        if key not in self._secrets:
            raise NotFoundError(f"there is no secret {key}", field="key")
        return self._secrets[key]

    def page(self, record: type[R], query: Checked) -> Page[R]:
        """See `lists.list_records`."""
        found = self.matching(record, query.conditions)
        fields = searched(record)
        for term in terms(query.search):
            found = [one for one in found if any(word.startswith(term) for word in words(one.__dict__, fields))]
        total = len(found)
        name = query.sort.name
        found.sort(key=lambda one: sort_key(one, name), reverse=query.descending)
        if query.after is not None:
            value = query.after.value
            start = (value is not None, value if value is not None else 0, query.after.record_id)
            past = operator.lt if query.descending else operator.gt
            found = [one for one in found if past(sort_key(one, name), start)]
        return finish(query, [_own(one) for one in found[: query.limit + 1]], total, COUNT_CAP)

    def matching(self, record: type[R], conditions: tuple[codec.Condition, ...]) -> list[R]:
        """The stored records that meet all conditions, in no order; not to be handed out."""
        rows: list[R] = list(self._rows[record.entity.name].records.values())
        for condition in conditions:
            test = _TESTS[condition.operator]
            name, value = condition.shape.name, condition.value
            rows = [row for row in rows if test(getattr(row, name), value)]
        return rows


class MemoryWriter(MemoryReader):
    """Reads and changes of one transaction."""

    def __init__(self, tables: Tables, records: Mapping[str, type[Record]], now: datetime) -> None:
        super().__init__(tables, records, now)
        self._copied: set[str] = set()
        self._touched: set[tuple[str, int]] = set()
        self._events: list[Event] = []

    def reserve(self, record: type[R], *, order: str = "id", limit: int = 1, **conditions: Any) -> Sequence[R]:
        """As `find`: writers come one after the other, so every row is held from the start of the transaction."""
        return self.find(record, order=order, limit=limit, **conditions)

    def insert(self, record: R) -> R:
        """Store a new record; it comes back with id and times. The server itself may bring its id 0."""
        if record.id not in (codec.NEW, SERVER_ID):
            raise ValueError("ids are given by the store")
        return self._insert(record)

    def _insert(self, record: R) -> R:
        kind = type(record)
        rows = self._own_rows(kind)
        record_id = rows.last + 1 if record.id == codec.NEW else record.id
        times = {"id": record_id, "created_at": self._now, "updated_at": self._now}
        stored = codec.decode(kind, codec.encode(record) | times)
        if record_id in rows.records:
            raise duplicate(kind, ("id",), times)
        self._check(stored, None)
        rows.last = max(rows.last, record_id)
        self._keep(rows, stored, None)
        return _own(stored)

    def update(self, record: R, **changes: Any) -> R:
        """Change fields; it comes back as stored. Only the named fields are written."""
        kind = type(record)
        values = codec.encode(codec.changed(record, changes), tuple(changes))
        rows = self._own_rows(kind)
        before: R | None = rows.records.get(record.id)
        if before is None:
            raise not_found(kind, record.id)
        stored = codec.decode(kind, codec.encode(before) | values | {"updated_at": self._now})
        self._check(stored, before)
        self._keep(rows, stored, before)
        return _own(stored)

    def delete(self, record: type[R], record_id: int) -> None:
        """Remove a record; NotFoundError. ConflictError naming one that points to it."""
        rows = self._own_rows(record)
        before = rows.records.get(record_id)
        if before is None:
            raise not_found(record, record_id)
        for other in self.records.values():
            for name, target in _refs(other).items():
                if target == record.entity.name:
                    users = self._rows[other.entity.name].records.values()
                    user = next((one for one in users if getattr(one, name) == record_id and one is not before), None)
                    if user is not None:
                        raise in_use(before, user, name)
        del rows.records[record_id]
        for fields in rows.taken:
            rows.taken[fields].pop(_values(before, fields), None)
        self._touched.add((record.entity.name, record_id))

    def event(self, text: str, *, severity: Severity, source: str, about: Record | None = None, **data: Any) -> None:
        """Log an event, seen when the transaction commits. `actor` and `operation_id` in `data` fill those fields."""
        self._events.append(event_record(self._now, text, severity=severity, source=source, about=about, data=data))

    def put_secret(self, key: str, value: str) -> None:
        """Store a secret."""
        self._secrets[key] = value

    def drop_secret(self, key: str) -> None:
        """Forget a secret; nothing happens when it is not there."""
        self._secrets.pop(key, None)

    def touch(self, entity: str, record_id: int) -> None:
        """Say that a record changed."""
        self._touched.add((entity, record_id))

    def finish(self) -> tuple[Tables, Commit]:
        """The content after this transaction and what changed."""
        stored = tuple(self._insert(event) for event in self._events) if "event" in self.records else ()
        return Tables(self._rows, self._secrets), Commit(frozenset(self._touched), stored)

    def _own_rows(self, record: type[Record]) -> Rows:
        name = record.entity.name
        if name not in self._copied:
            self._rows[name] = self._rows[name].copy()
            self._copied.add(name)
        return self._rows[name]

    def _check(self, record: Record, before: Record | None) -> None:
        """ConflictError when the record, as it would be stored, violates a constraint."""
        rows = self._rows[type(record).entity.name]
        for fields, taken in rows.taken.items():
            key = _values(record, fields)
            if None not in key and taken.get(key, record.id) != record.id:
                raise duplicate(type(record), fields, codec.encode(record))
        for name, target in _refs(type(record)).items():
            wanted = getattr(record, name)
            kept = before is not None and getattr(before, name) == wanted
            if wanted is not None and not kept and not self._exists(record, target, wanted):
                raise missing_reference(name, self.records[target], wanted)

    def _exists(self, record: Record, target: str, wanted: int) -> bool:
        itself = target == type(record).entity.name and wanted == record.id
        return itself or wanted in self._rows[target].records

    def _keep(self, rows: Rows, record: Record, before: Record | None) -> None:
        rows.records[record.id] = record
        for fields, taken in rows.taken.items():
            if before is not None:
                taken.pop(_values(before, fields), None)
            key = _values(record, fields)
            if None not in key:
                taken[key] = record.id
        self._touched.add((type(record).entity.name, record.id))


class MemoryDatabase:
    """Implements `engine.ports.Database` over dictionaries."""

    def __init__(self, records: Mapping[str, type[Record]] = ENTITIES, *, clock: Clock = utc_now) -> None:
        self.records = dict(records)
        self._clock = clock
        self._lock = threading.Lock()
        self._listeners = Listeners()
        rows = {name: Rows(taken={fields: {} for fields in _unique(kind)}) for name, kind in self.records.items()}
        self._tables = Tables(rows, {})

    @contextmanager
    def read(self) -> Iterator[MemoryReader]:
        """A consistent read."""
        yield MemoryReader(self._tables, self.records, self._clock())

    @contextmanager
    def write(self) -> Iterator[MemoryWriter]:
        """A transaction: committed at the end, rolled back on an exception."""
        if not self._lock.acquire(timeout=WAIT_SECONDS):
            raise UnavailableError("all database connections are in use", remedy="try again later")
        try:
            writer = MemoryWriter(self._tables, self.records, self._clock())
            yield writer
            self._tables, commit = writer.finish()
        finally:
            self._lock.release()
        self._listeners.announce(commit)

    def on_commit(self, callback: Callable[[Commit], None]) -> Callable[[], None]:
        """Call back after every commit that changed something; returns how to stop it."""
        return self._listeners.add(callback)

    def close(self) -> None:
        """Nothing to let go; the SQL databases have connections."""


def sort_key(record: Record, name: str) -> tuple[bool, Any, int]:
    """Empty before all others, then the value, then the id."""
    value = getattr(record, name)
    return (value is not None, value if value is not None else 0, record.id)


def _own(record: R) -> R:
    """A record that the caller may keep: changes of what is inside it do not reach the store."""
    shapes = codec.shapes(type(record))
    loose = {name: getattr(record, name) for name, shape in shapes.items() if shape.kind is codec.Kind.JSON}
    mutable = {name: copy.deepcopy(value) for name, value in loose.items() if isinstance(value, dict) and value}
    return record.model_copy(update=mutable) if mutable else record


def _values(record: Record, fields: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in fields)


def _refs(record: type[Record]) -> dict[str, str]:
    return {name: shape.attr.ref for name, shape in codec.shapes(record).items() if shape.attr.ref}


def _unique(record: type[Record]) -> tuple[tuple[str, ...], ...]:
    single = tuple((name,) for name, shape in codec.shapes(record).items() if shape.attr.unique)
    return tuple(dict.fromkeys(single + record.entity.unique))


_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda stored, value: stored == value,
    "ne": lambda stored, value: stored != value,
    "lt": lambda stored, value: stored is not None and stored < value,
    "le": lambda stored, value: stored is not None and stored <= value,
    "gt": lambda stored, value: stored is not None and stored > value,
    "ge": lambda stored, value: stored is not None and stored >= value,
    "in": lambda stored, value: stored in value,
    "null": lambda stored, value: (stored is None) == value,
}


class MemoryTables:
    """Implements `engine.ports.PluginTables`: here every record has its table from the start."""

    def make(self, writer: Writer, plugin: Plugin) -> None:
        """They are there."""

    def drop(self, writer: Writer, plugin: Plugin) -> None:
        """Forget what is in them."""
        for record in reversed(plugin.entities):
            for one in writer.find(record):
                writer.delete(record, one.id)
