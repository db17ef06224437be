"""SQL tables as projections of the records' declarations. Nothing here is written per entity.

A field is a column; `Attr.filter` makes an index `(field, id)`, which also serves keyset sorting; `Attr.ref` makes a
foreign key that restricts. Text is compared by code point on every database, so that sorting and prefix search agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator, TypeEngine

from openqrm.store.codec import Kind, Shape, shapes
from openqrm.store.words import LENGTH, searched

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from openqrm.domain.model import Record

ENUM_LENGTH = 32
LONGEST_VARCHAR = 4096
"""Above this a text column has no length: some databases count varchars towards a row's limit."""


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC, to the microsecond; SQLite keeps it as text that sorts."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """SQLite has no time zones: it is given UTC without saying so."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Always UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


def big_integer() -> TypeEngine[int]:
    """64 bits; SQLite numbers rows only when the type is exactly INTEGER."""
    return BigInteger().with_variant(Integer(), "sqlite")


def text(length: int | None) -> TypeEngine[str]:
    """Text compared by code point: SQLite does by itself, PostgreSQL with collation C."""
    if length is None or length > LONGEST_VARCHAR:
        return Text().with_variant(Text(collation="C"), "postgresql")
    return String(length).with_variant(String(length, collation="C"), "postgresql")


def json() -> TypeEngine[Any]:
    """JSON; None is NULL."""
    return JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def column_type(shape: Shape) -> TypeEngine[Any]:
    """The SQL type of a field."""
    if shape.kind is Kind.TEXT:
        return text(shape.max_length)
    kinds: dict[Kind, TypeEngine[Any]] = {
        Kind.INTEGER: big_integer(),
        Kind.FLOAT: Float(),
        Kind.BOOLEAN: Boolean(),
        Kind.ENUM: text(ENUM_LENGTH),
        Kind.TIME: UtcTime(),
        Kind.JSON: json(),
    }
    return kinds[shape.kind]


@dataclass(frozen=True, eq=False)
class Projection:
    """A record's table and what its constraints mean."""

    record: type[Record]
    table: Table
    fields: tuple[str, ...]
    unique: tuple[tuple[str, ...], ...]
    refs: Mapping[str, str]
    """Field to the name of the entity it points to."""
    searched: tuple[str, ...]

    def constrained(self, fields: Iterable[str]) -> bool:
        """Whether a change of these fields can violate a constraint."""
        watched = {name for names in self.unique for name in names} | set(self.refs)
        return not watched.isdisjoint(fields)


class Schema:
    """All tables of an installation: one per record, secrets, and the words that search looks in."""

    def __init__(self, records: Mapping[str, type[Record]]) -> None:
        self.metadata = MetaData()
        self.records = dict(records)
        self.projections = {record: self._project(record) for record in records.values()}
        self.secrets = Table(
            "secrets",
            self.metadata,
            Column("key", text(500), primary_key=True),
            Column("key_id", text(32), nullable=False),
            Column("sealed", LargeBinary, nullable=False),
            Column("updated_at", UtcTime(), nullable=False),
        )
        self.words = Table(
            "search_words",
            self.metadata,
            Column("entity", text(63), nullable=False),
            Column("word", text(LENGTH), nullable=False),
            Column("record_id", big_integer(), nullable=False, autoincrement=False),
            PrimaryKeyConstraint("entity", "word", "record_id", name="pk_search_words"),
            Index("ix_search_words_record", "entity", "record_id", "word"),
            sqlite_with_rowid=False,
        )

    def __getitem__(self, record: type[Record]) -> Projection:
        return self.projections[record]

    def table(self, entity: str) -> Table:
        """The table of an entity, by the entity's name."""
        return self.projections[self.records[entity]].table

    def referring(self, entity: str) -> list[tuple[Projection, str]]:
        """Every (record, field) that may point to an entity."""
        return [
            (projection, field)
            for projection in self.projections.values()
            for field, target in projection.refs.items()
            if target == entity
        ]

    def _project(self, record: type[Record]) -> Projection:
        name = table_name(record)
        known = shapes(record)
        refs = {field: shape.attr.ref for field, shape in known.items() if shape.attr.ref}
        single = tuple((field,) for field, shape in known.items() if shape.attr.unique)
        unique = tuple(dict.fromkeys(single + record.entity.unique))
        parts: list[Any] = [_column(shape) for shape in known.values()]
        parts += [UniqueConstraint(*fields, name=f"uq_{name}_{'_'.join(fields)}") for fields in unique]
        parts += [
            ForeignKeyConstraint(
                [field], [f"{table_name(self.records[target])}.id"], name=f"fk_{name}_{field}", ondelete="RESTRICT"
            )
            for field, target in refs.items()
        ]
        table = Table(name, self.metadata, *parts, sqlite_autoincrement=True)
        for fields in _indexes(record, unique):
            Index(f"ix_{name}_{'_'.join(fields)}", *(table.c[field] for field in fields))
        return Projection(record, table, tuple(known), unique, refs, searched(record))


def table_name(record: type[Record]) -> str:
    """The table of a record: its plural, which is never a reserved word."""
    return record.entity.plural.replace("-", "_")


def _column(shape: Shape) -> Column[Any]:
    if shape.name == "id":
        return Column("id", big_integer(), primary_key=True, autoincrement=True)
    nullable = shape.nullable and shape.name not in ("created_at", "updated_at")
    return Column(shape.name, column_type(shape), nullable=nullable)


def _indexes(record: type[Record], unique: tuple[tuple[str, ...], ...]) -> list[tuple[str, ...]]:
    """What to index: filtered fields and references with the id behind, and what the entity lists."""
    wanted: list[tuple[str, ...]] = []
    for name, shape in shapes(record).items():
        alone = (name,) in unique and not shape.nullable
        if name != "id" and not alone and (shape.attr.filter or shape.attr.ref):
            wanted.append((name, "id"))
    wanted += [fields for fields in record.entity.indexes if fields not in unique]
    return list(dict.fromkeys(wanted))
