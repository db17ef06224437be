"""Lists for people and programs: filters, search, sort, and pages by keyset cursor, at a constant number of queries.

A page starts behind the last record of the one before, found in an index, so the thousandth page costs what the first
does and records that come and go meanwhile shift nothing. Search is by word starts, see `words`. The total is counted
up to `COUNT_CAP` only. Everything a caller can get wrong is an InvalidError naming the field.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, runtime_checkable

from pydantic import TypeAdapter, ValidationError

from openqrm.domain.errors import InvalidError
from openqrm.domain.model import R, Record
from openqrm.store import codec
from openqrm.store.codec import Condition, Kind, Shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.plugin_api.records import Reader

LIMIT = 50
LONGEST = 500
COUNT_CAP = 10_000
MOST_VALUES = 500
"""Values of one `in` filter."""
OPERATORS = ("eq", "ne", "lt", "le", "gt", "ge", "in", "null")


class Filter(NamedTuple):
    """A condition on a field declared with `filter=True`; the value may be text, as it comes in a URL.

    `in` takes a sequence or comma-separated text; `null` takes true or false.
    """

    field: str
    operator: str
    value: Any


class Query(Protocol):
    """What is asked for; `ListQuery` is one, and so is what the API makes of a URL."""

    @property
    def filters(self) -> Sequence[tuple[str, str, Any]]:
        """As `Filter`: field, operator, value."""

    @property
    def search(self) -> str:
        """Terms, all of which must match."""

    @property
    def sort(self) -> str:
        """`id` or a filter field, with `-` in front for descending."""

    @property
    def cursor(self) -> str | None:
        """Where the page begins."""

    @property
    def limit(self) -> int:
        """Records on a page."""


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What is asked for. `sort` is `id` or a filter field, with `-` in front for descending."""

    filters: tuple[Filter, ...] = ()
    search: str = ""
    sort: str = "id"
    cursor: str | None = None
    limit: int = LIMIT


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """A page of records. `total` is how many meet the query; when `capped`, there are more than that."""

    records: tuple[R, ...]
    next_cursor: str | None
    total: int
    capped: bool


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page starts: behind the record with this sort value and id."""

    value: Any
    record_id: int


@dataclass(frozen=True, slots=True)
class Checked:
    """A query without mistakes in it."""

    conditions: tuple[Condition, ...]
    search: str
    sort: Shape
    descending: bool
    after: Position | None
    limit: int
    mark: str


@runtime_checkable
class Lister(Protocol):
    """A reader that can list; both stores' readers are."""

    def page(self, record: type[R], query: Checked) -> Page[R]:
        """The page."""


def list_records(reader: Reader, record: type[R], query: Query) -> Page[R]:
    """A page of records. InvalidError naming the field, `sort`, `limit` or `cursor`."""
    if not isinstance(reader, Lister):
        raise TypeError(f"{type(reader).__name__} cannot list")
    return reader.page(record, check(record, query))


def sortable(record: type[Record]) -> tuple[str, ...]:
    """The fields a record's list may be filtered and sorted by, `id` first."""
    return tuple(name for name, shape in codec.shapes(record).items() if shape.attr.filter and not shape.attr.secret)


def check(record: type[Record], query: Query) -> Checked:
    """The query as the stores take it."""
    if not 1 <= query.limit <= LONGEST:
        raise InvalidError(f"limit is from 1 to {LONGEST}", field="limit")
    if len(query.search) > 1000:
        raise InvalidError("search has at most 1000 characters", field="search")
    descending = query.sort.startswith("-")
    known = sortable(record)
    name = query.sort.removeprefix("-")
    if name not in known:
        raise InvalidError(f"cannot sort by {name!r}", field="sort", remedy=f"sort by one of: {', '.join(known)}")
    shape = codec.shapes(record)[name]
    conditions = tuple(_condition(record, known, Filter(*one)) for one in query.filters)
    mark = _mark(record, query)
    after = _position(query.cursor, shape, mark) if query.cursor else None
    return Checked(conditions, query.search, shape, descending, after, query.limit, mark)


def finish(checked: Checked, found: Sequence[R], total: int, cap: int) -> Page[R]:
    """A page from one record more than was asked for, which tells whether there is a next."""
    records = tuple(found[: checked.limit])
    cursor = None
    if len(found) > checked.limit:
        last = records[-1]
        value = codec.encode_value(checked.sort, getattr(last, checked.sort.name))
        cursor = _cursor(checked.mark, value, last.id)
    return Page(records, cursor, min(total, cap), total > cap)


def _condition(record: type[Record], known: tuple[str, ...], given: Filter) -> Condition:
    if given.field not in known:
        raise InvalidError(
            f"cannot filter by {given.field!r}", field=given.field, remedy=f"filter by one of: {', '.join(known)}"
        )
    if given.operator not in OPERATORS:
        raise InvalidError(
            f"{given.field}: there is no operator {given.operator!r}",
            field=given.field,
            remedy=f"one of: {', '.join(OPERATORS)}",
        )
    shape = codec.shapes(record)[given.field]
    if given.operator == "null":
        return Condition(shape, "null", _parsed(shape, given.value, TypeAdapter(bool)))
    if given.operator == "in":
        values = given.value.split(",") if isinstance(given.value, str) else list(given.value)
        if len(values) > MOST_VALUES:
            raise InvalidError(f"{given.field}: at most {MOST_VALUES} values", field=given.field)
        return Condition(shape, "in", tuple(_value(shape, one) for one in values))
    return Condition(shape, given.operator, _value(shape, given.value))


_ADAPTERS: dict[Kind, TypeAdapter[Any]] = {
    Kind.INTEGER: TypeAdapter(int),
    Kind.FLOAT: TypeAdapter(float),
    Kind.BOOLEAN: TypeAdapter(bool),
    Kind.TEXT: TypeAdapter(str),
    Kind.TIME: TypeAdapter(datetime),
}


def _value(shape: Shape, value: Any) -> Any:
    """A filter's value as it is stored. A name that is not among an enumeration's is a mistake, not an empty list."""
    adapter = _ADAPTERS.get(shape.kind) or TypeAdapter(shape.python)
    parsed = _parsed(shape, value, adapter)
    if shape.kind is Kind.INTEGER and abs(parsed) > codec.MAX_ID:
        raise InvalidError(f"{shape.name}: out of range", field=shape.name)
    if shape.kind is Kind.TEXT and shape.attr.ref is None and len(parsed) > 4096:
        raise InvalidError(f"{shape.name}: too long", field=shape.name)
    return codec.encode_value(shape, parsed)


def _parsed(shape: Shape, value: Any, adapter: TypeAdapter[Any]) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise InvalidError(f"{shape.name}: {error.errors()[0]['msg']}", field=shape.name) from error


def _mark(record: type[Record], query: Query) -> str:
    """Ties a cursor to its query: with another filter or order it would point nowhere."""
    parts = [record.entity.name, query.sort, query.search, *(repr(tuple(one)) for one in query.filters)]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:12]


def _cursor(mark: str, value: Any, record_id: int) -> str:
    plain = value.isoformat() if isinstance(value, datetime) else value
    text = json.dumps([mark, plain, record_id], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _position(cursor: str, shape: Shape, mark: str) -> Position:
    refused = InvalidError("this cursor does not belong to this list", field="cursor", remedy="start without a cursor")
    try:
        if len(cursor) > 10_000:
            raise refused
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        seen, value, record_id = json.loads(raw)
        if seen != mark or type(record_id) is not int or abs(record_id) > codec.MAX_ID:
            raise refused
        if value is None:
            if not shape.nullable:
                raise refused
            return Position(None, record_id)
        return Position(_value(shape, value), record_id)
    except (ValueError, TypeError, RecursionError, InvalidError) as error:
        raise refused from error
