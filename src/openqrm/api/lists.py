"""The query parameters of lists: filters by field, search, sort, limit and cursor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, cast

from pydantic import TypeAdapter, ValidationError

from openqrm.domain.errors import InvalidError
from openqrm.domain.model import R, Record, attributes
from openqrm.operations.authorize import visible

if TYPE_CHECKING:
    from openqrm.domain.user import Actor

OPERATORS = ("ne", "lt", "le", "gt", "ge", "in", "null")
"""Written as `field__operator=value`; without one: equal. `in` takes a comma-separated list, `null` true or false."""
MAX_LIMIT = 1000
DEFAULT_LIMIT = 100
MAX_SEARCH = 200


@dataclass(frozen=True)
class ListQuery:
    """`conditions` are as for `Reader.find`. `sort` is a field, with `-` in front for descending."""

    conditions: Mapping[str, Any] = field(default_factory=dict)
    search: str = ""
    sort: str = "id"
    limit: int = DEFAULT_LIMIT
    cursor: str | None = None


@dataclass(frozen=True)
class Page(Generic[R]):
    """`next` is the cursor of the page that follows; None at the end."""

    items: Sequence[R]
    next: str | None


Lists = Callable[[type[Record], ListQuery], Page[Any]]
"""Blocking; InvalidError for a cursor that does not belong to the query."""


def filters(record: type[Record]) -> tuple[str, ...]:
    """The fields that may be filtered and sorted by."""
    return tuple(name for name, attr in attributes(record).items() if attr.filter and not attr.secret)


@cache
def known_parameters(record: type[Record]) -> frozenset[str]:
    """Every parameter a list of these records takes."""
    names = filters(record)
    suffixed = {f"{name}__{operator}" for name in names for operator in OPERATORS}
    return frozenset({"limit", "cursor", "sort", "q", *names, *suffixed})


def query_of(record: type[Record], given: Mapping[str, str], actor: Actor) -> ListQuery:
    """The parameters as a query that shows only what the actor may see; InvalidError naming the parameter."""
    reserved = {"limit", "cursor", "sort", "q"}
    conditions = {name: _value(record, name, text) for name, text in given.items() if name not in reserved}
    search = given.get("q", "")
    if len(search) > MAX_SEARCH:
        raise InvalidError(f"q: at most {MAX_SEARCH} characters", field="q")
    return ListQuery(
        conditions=conditions | _narrowed(record, actor, conditions),
        search=search,
        sort=_sort(record, given.get("sort", "id")),
        limit=_limit(given.get("limit")),
        cursor=given.get("cursor"),
    )


def _narrowed(record: type[Record], actor: Actor, conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Visibility wins over a filter on the same field: what is not visible is not found."""
    narrow = visible(actor, record)
    return {name: value if conditions.get(name, value) == value else -1 for name, value in narrow.items()}


def _sort(record: type[Record], text: str) -> str:
    if text.removeprefix("-") not in filters(record):
        raise InvalidError(f"sort: cannot sort by {text[:80]}", field="sort", remedy=", ".join(filters(record)))
    return text


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 6 else 0
    if not 1 <= number <= MAX_LIMIT:
        raise InvalidError(f"limit: is 1 to {MAX_LIMIT}", field="limit")
    return number


def _value(record: type[Record], name: str, text: str) -> Any:
    field_name, _, operator = name.partition("__")
    adapter = _adapter(record, field_name)
    try:
        if operator == "null":
            return TypeAdapter(bool).validate_strings(text)
        if operator == "in":
            return [adapter.validate_strings(part) for part in text.split(",")][:MAX_LIMIT]
        return adapter.validate_strings(text)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise InvalidError(f"{name}: {message}", field=name) from error


@cache
def _adapter(record: type[Record], name: str) -> TypeAdapter[Any]:
    return TypeAdapter(cast("Any", record.model_fields[name].annotation))
