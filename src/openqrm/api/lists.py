"""The query parameters of lists: filters by field, search, sort, limit and cursor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from openqrm.domain.errors import InvalidError
from openqrm.domain.model import Record, attributes, hidden_of
from openqrm.operations.authorize import visible

if TYPE_CHECKING:
    from openqrm.domain.user import Actor

OPERATORS = ("ne", "lt", "le", "gt", "ge", "in", "null")
"""Written as `field__operator=value`; without one: equal. `in` takes a comma-separated list, `null` true or false."""
MAX_LIMIT = 500
DEFAULT_LIMIT = 100
MAX_SEARCH = 200
MAX_VALUE = 4000
_RESERVED = frozenset({"limit", "cursor", "sort", "q"})


@dataclass(frozen=True)
class ListQuery:
    """`filters` are (field, operator, value). `sort` is a field, with `-` in front for descending."""

    filters: tuple[tuple[str, str, Any], ...] = ()
    search: str = ""
    sort: str = "id"
    cursor: str | None = None
    limit: int = DEFAULT_LIMIT


class Page(Protocol):
    """What a list answers; `capped` says that there are more than `total`."""

    @property
    def records(self) -> Sequence[Record]:
        """In order."""

    @property
    def next_cursor(self) -> str | None:
        """Where the page that follows begins."""

    @property
    def total(self) -> int:
        """How many meet the query."""

    @property
    def capped(self) -> bool:
        """Whether counting stopped there."""


Lists = Callable[[type[Record], ListQuery], Page]
"""Blocking; InvalidError naming the field, `sort`, `limit` or `cursor`."""


def filters(record: type[Record]) -> tuple[str, ...]:
    """The fields that may be filtered and sorted by."""
    return tuple(name for name, attr in attributes(record).items() if attr.filter and name not in hidden_of(record))


def default_sort(record: type[Record]) -> str:
    """The order of a list that asks for none: by id, the newest first for what is declared so."""
    return "-id" if record.entity.newest_first else "id"


@cache
def known_parameters(record: type[Record]) -> frozenset[str]:
    """Every parameter a list of these records takes."""
    names = filters(record)
    suffixed = {f"{name}__{operator}" for name in names for operator in OPERATORS}
    return frozenset({*_RESERVED, *names, *suffixed})


def query_of(record: type[Record], given: Mapping[str, str], actor: Actor) -> ListQuery:
    """The parameters as a query that shows only what the actor may see; InvalidError naming the parameter."""
    found: list[tuple[str, str, Any]] = []
    for name, text in given.items():
        if len(text) > MAX_VALUE:
            raise InvalidError(f"{name}: is too long", field=name)
        if name not in _RESERVED:
            field, _, operator = name.partition("__")
            found.append((field, operator or "eq", text))
    found += [(name, "eq", value) for name, value in visible(actor, record).items()]
    search = given.get("q", "")
    if len(search) > MAX_SEARCH:
        raise InvalidError(f"q: at most {MAX_SEARCH} characters", field="q")
    return ListQuery(
        filters=tuple(found),
        search=search,
        sort=_sort(record, given.get("sort", default_sort(record))),
        cursor=given.get("cursor"),
        limit=_limit(given.get("limit")),
    )


def _sort(record: type[Record], text: str) -> str:
    if text.removeprefix("-") not in filters(record):
        known = ", ".join(filters(record))
        raise InvalidError(f"sort: cannot sort by {text[:80]}", field="sort", remedy=f"sort by one of: {known}")
    return text


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 6 else 0
    if not 1 <= number <= MAX_LIMIT:
        raise InvalidError(f"limit: is 1 to {MAX_LIMIT}", field="limit")
    return number
