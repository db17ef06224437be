"""Records as plain column values and back, without any database: shared by the SQL and the dictionary store.

Values that JSON or PostgreSQL cannot keep (NUL characters, lone surrogates, NaN) are replaced inside JSON, because a
command's output must never stop the journal, and refused in text fields, because there a caller can mend them.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, StrEnum
from functools import cache
from typing import Annotated, Any, Union, cast, get_args, get_origin

from annotated_types import MaxLen
from pydantic import BaseModel, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from openqrm.domain.errors import InvalidError
from openqrm.domain.model import Attr, R, Record, attributes

MAX_ID = 2**63 - 1
NEW = -1
"""The id of a record that is not stored yet."""


class Kind(StrEnum):
    """How a field is stored."""

    INTEGER = "integer"
    FLOAT = "float"
    BOOLEAN = "boolean"
    TEXT = "text"
    ENUM = "enum"
    TIME = "time"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Shape:
    """One field: how it is stored, and what its declaration says of it."""

    name: str
    kind: Kind
    python: Any
    nullable: bool
    max_length: int | None
    attr: Attr


def _unwrap(annotation: Any, metadata: list[Any]) -> tuple[Any, bool, list[Any]]:
    """The bare type of an annotation, whether None is allowed, and all constraints found on the way."""
    nullable = False
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *more = get_args(annotation)
            metadata = [*metadata, *more]
        elif origin in (Union, types.UnionType):
            members = [member for member in get_args(annotation) if member is not type(None)]
            if len(members) != 1:
                return annotation, nullable, metadata
            nullable = True
            annotation = members[0]
        else:
            return annotation, nullable, metadata


def _max_length(metadata: list[Any]) -> int | None:
    for item in metadata:
        if isinstance(item, MaxLen):
            return item.max_length
        if isinstance(item, StringConstraints) and item.max_length is not None:
            return item.max_length
        nested = getattr(item, "metadata", None)
        if nested and (found := _max_length(list(nested))) is not None:
            return found
    return None


def _kind(bare: Any) -> Kind:
    if isinstance(bare, type):
        for base, kind in (
            (Enum, Kind.ENUM),
            (bool, Kind.BOOLEAN),
            (int, Kind.INTEGER),
            (float, Kind.FLOAT),
            (str, Kind.TEXT),
            (datetime, Kind.TIME),
        ):
            if issubclass(bare, base):
                return kind
    return Kind.JSON


@cache
def shapes(record: type[Record]) -> dict[str, Shape]:
    """Every field of a record, in declaration order, `id` first."""
    found: dict[str, Shape] = {}
    attrs = attributes(record)
    for name, info in record.model_fields.items():
        bare, nullable, metadata = _unwrap(info.annotation, list(info.metadata))
        found[name] = Shape(name, _kind(bare), bare, nullable, _max_length(metadata), attrs[name])
    return found


def _decoder(shape: Shape) -> Callable[[Any], Any] | None:
    if shape.kind is Kind.ENUM:
        members = {member.value: member for member in shape.python}
        return lambda value: members[value]
    if shape.kind is not Kind.JSON or get_origin(shape.python) is dict:
        return None
    adapter: TypeAdapter[Any] = TypeAdapter(shape.python)
    return adapter.validate_python


@cache
def _decoders(record: type[Record]) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    pairs = ((name, _decoder(shape)) for name, shape in shapes(record).items())
    return tuple((name, decoder) for name, decoder in pairs if decoder is not None)


def decode(record: type[R], values: dict[str, Any]) -> R:
    """A record from stored values; they were validated when they were stored, so that is not done again."""
    for name, decoder in _decoders(record):
        if values[name] is not None:
            values[name] = decoder(values[name])
    return cast("R", record.model_construct(**values))


def decode_columns(record: type[Record], names: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Some fields of stored records, each as `decode` gives it."""
    decoders = dict(_decoders(record))
    wanted = [decoders.get(name) for name in names]
    return [
        tuple(
            value if decoder is None or value is None else decoder(value)
            for decoder, value in zip(wanted, row, strict=True)
        )
        for row in rows
    ]


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_clean(str(name)): _clean(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value


def as_json(value: Any) -> Any:
    """JSON-ready data that every database can keep, independent of what was given. InvalidError when it is no data."""
    try:
        try:
            plain = to_jsonable_python(value)
        except ValueError:  # a lone surrogate, or no data at all
            plain = to_jsonable_python(_clean(value))
        try:
            text = json.dumps(plain, ensure_ascii=False, allow_nan=False)
            text.encode()
        except ValueError:  # NaN, or a lone surrogate
            return _clean(plain)
        return _clean(plain) if "\\u0000" in text else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"not data that can be stored as JSON: {error}") from error


def encode_value(shape: Shape, value: Any) -> Any:
    """One value as it is stored. InvalidError naming the field for text that no database keeps."""
    if value is None:
        return None
    if shape.kind is Kind.ENUM:
        return shape.python(value).value
    if shape.kind is Kind.TIME:
        if value.tzinfo is None:
            raise InvalidError(f"{shape.name}: a time needs a time zone", field=shape.name)
        return value.astimezone(UTC)
    if shape.kind is Kind.TEXT and ("\x00" in value or not value.isascii()):
        _check_text(shape.name, value)
    return as_json(value) if shape.kind is Kind.JSON else value


def _check_text(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidError(f"{name} is not valid Unicode text", field=name) from error
    if "\x00" in value:
        raise InvalidError(f"{name} contains a NUL character", field=name)


def encode(record: Record, fields: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Stored values of a record's fields (default: all)."""
    known = shapes(type(record))
    names = known if fields is None else fields
    return {name: encode_value(known[name], getattr(record, name)) for name in names}


def changed(record: R, changes: Mapping[str, Any]) -> R:
    """The record with changes, validated like a new one. InvalidError naming the field."""
    for name in ("id", "created_at", "updated_at"):
        if name in changes:
            raise ValueError(f"{name} is set by the store")
    try:
        return type(record).model_validate({**record.__dict__, **changes})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidError(f"{place}: {first['msg']}", field=place or None) from error


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of `find`; the value is encoded already."""

    shape: Shape
    operator: str
    value: Any


def conditions(record: type[Record], given: Mapping[str, Any]) -> tuple[Condition, ...]:
    """Parse `field=value` and `field__operator=value`. ValueError for what the record does not have."""
    known = shapes(record)
    found = []
    for key, value in given.items():
        name, _, operator = key.partition("__")
        shape = known.get(name)
        if shape is None or operator not in ("", "eq", "ne", "lt", "le", "gt", "ge", "in", "null"):
            raise ValueError(f"{record.entity.name} has no condition {key!r}")
        found.append(_condition(shape, operator or "eq", value))
    return tuple(found)


def _condition(shape: Shape, operator: str, value: Any) -> Condition:
    if operator == "null":
        return Condition(shape, "null", bool(value))
    if operator == "in":
        values = tuple(encode_value(shape, item) for item in value)
        if None in values:
            raise ValueError(f"{shape.name}__in cannot look for None; use {shape.name}__null")
        return Condition(shape, "in", values)
    if value is None:
        if operator not in ("eq", "ne"):
            raise ValueError(f"{shape.name}__{operator} needs a value")
        return Condition(shape, "null", operator == "eq")
    if isinstance(value, BaseModel):
        raise ValueError(f"{shape.name} cannot be compared with a {type(value).__name__}")  # noqa: TRY004 - as documented
    return Condition(shape, operator, encode_value(shape, value))


def order(record: type[Record], text: str) -> tuple[str, bool]:
    """The field to sort by and whether descending. ValueError for an unknown one."""
    name, descending = (text[1:], True) if text.startswith("-") else (text, False)
    if name not in record.model_fields:
        raise ValueError(f"{record.entity.name} has no field {name!r} to sort by")
    return name, descending


def label(record: Record) -> str:
    """How a record is called in messages: its kind and label."""
    entity = type(record).entity
    return f"{entity.title.lower()} {getattr(record, entity.label, record.id)}"
