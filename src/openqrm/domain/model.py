"""How an entity is declared: a frozen record whose fields carry all that tables, API, CLI and docs need.

One field is one line here and nowhere else: the SQL column, the REST schema, the CLI column and the reference page are
projections of its annotation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openqrm.domain.states import StateTable


@dataclass(frozen=True, slots=True)
class Attr:
    """What a field means beyond its type.

    `ref` names the entity an id points to. `listed` fields are columns of the default table. `search` fields take part
    in free-text search. `filter` fields are indexed and may be filtered and sorted by. `secret` fields never leave the
    controller. `derived` fields are set by the controller and refused as input. `internal` fields serve the database
    alone (a mark that makes something unique): no surface shows them. `known` names a list of what is installed
    (`Registry.known`), which surfaces show beside the help.
    """

    title: str
    help: str = ""
    unit: str = ""
    ref: str | None = None
    unique: bool = False
    filter: bool = False
    search: bool = False
    listed: bool = False
    secret: bool = False
    immutable: bool = False
    derived: bool = False
    internal: bool = False
    known: str = ""


class Record(BaseModel):
    """Base of all entities. `id` is 0 for the server itself (resource 0) and -1 for one not stored yet."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=False)

    entity: ClassVar[Entity]

    id: Annotated[int, Attr("ID", derived=True, filter=True, listed=True)] = -1
    created_at: Annotated[datetime | None, Attr("Created", derived=True)] = None
    updated_at: Annotated[datetime | None, Attr("Updated", derived=True)] = None


R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Entity:
    """The declaration of one kind of thing.

    `states` maps a field to the table its changes must follow. `unique` lists sets of fields that are unique together;
    `indexes` those that are looked up together. `stored_only` entities have no pages of their own in the API.
    `newest_first` turns the default order of their list round, for what grows like a log.
    """

    name: str
    plural: str
    title: str
    summary: str
    label: str = "name"
    states: dict[str, StateTable] = field(default_factory=dict)
    unique: tuple[tuple[str, ...], ...] = ()
    indexes: tuple[tuple[str, ...], ...] = ()
    stored_only: bool = False
    newest_first: bool = False


def attributes(record: type[Record]) -> dict[str, Attr]:
    """Every field's `Attr`, in declaration order, `id` first; a field without one gets its name as title."""
    found: dict[str, Attr] = {}
    for name, info in record.model_fields.items():
        attr = next((extra for extra in info.metadata if isinstance(extra, Attr)), None)
        found[name] = attr or Attr(name.replace("_", " ").capitalize())
    return found


@cache
def hidden_of(record: type[Record]) -> frozenset[str]:
    """The names of fields that no surface shows: secret ones and internal ones."""
    return frozenset(name for name, attr in attributes(record).items() if attr.secret or attr.internal)


def public(record: Record) -> dict[str, Any]:
    """The record as JSON-ready data without its secret and internal fields."""
    return record.model_dump(mode="json", exclude=set(hidden_of(type(record))))


def _mac(text: str) -> str:
    digits = text.lower().replace("-", "").replace(":", "").replace(".", "")
    if len(digits) != 12 or any(character not in "0123456789abcdef" for character in digits):
        raise ValueError("a MAC address has six bytes, for example 52:54:00:12:34:56")
    if int(digits[1], 16) & 1:
        raise ValueError("this is a multicast address; a network card has a unicast one")
    return ":".join(digits[place : place + 2] for place in range(0, 12, 2))


NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"

IN_WORDS = {NAME_PATTERN: "lower-case letters, digits and dashes, with a letter or a digit first and last"}
"""Patterns as people are told of them."""


def _no_number(value: str) -> str:
    if value.isdigit():
        raise ValueError("a name of digits alone would be taken for an id; begin it with a letter")
    return value


Name = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=NAME_PATTERN), AfterValidator(_no_number)]
"""A name usable as a DNS label (RFC 1123): lower case, digits, inner dashes, at most 63 characters; no number."""

KernelVersion = Annotated[
    str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+~-]*$")
]

Text = Annotated[str, StringConstraints(max_length=1000)]
LongText = Annotated[str, StringConstraints(max_length=100_000)]
Mac = Annotated[str, StringConstraints(max_length=17), AfterValidator(_mac)]
Id = Annotated[int, Field(ge=-1, le=2**53)]
MegaBytes = Annotated[int, Field(ge=0, le=2**40)]


def registry_of(records: Iterable[type[Record]]) -> dict[str, type[Record]]:
    """Records by entity name; a name declared twice is a programming error."""
    found: dict[str, type[Record]] = {}
    for record in records:
        if record.entity.name in found:
            raise ValueError(f"entity {record.entity.name} is declared twice")
        found[record.entity.name] = record
    return found
