"""Finding a record by what a person calls it: its id, its name, or another text that is unique."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import TypeAdapter, ValidationError

from openqrm.domain.errors import ConflictError, NotFoundError
from openqrm.domain.model import R, Record, attributes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.plugin_api.records import Reader

LARGEST_ID = 2**53


def find(reader: Reader, record: type[R], which: int | str) -> R:
    """The record; NotFoundError. ConflictError when a name that need not be unique is borne by several.

    Digits are an id, or a MAC address, and never a name: what they meant yesterday would be another thing's id
    tomorrow.
    """
    digits = isinstance(which, int) or (which.isascii() and which.isdigit())
    if digits:
        number = int(which) if len(str(which)) <= 16 else -1
        if 0 <= number <= LARGEST_ID:
            try:
                return reader.get(record, number)
            except NotFoundError:
                pass
    if isinstance(which, int):
        raise _absent(record, which)
    if "\x00" in which or not which.isprintable():
        raise _absent(record, "of this name")
    keys = text_keys(record)
    return _by_text(reader, record, which, [key for key in keys if not digits or key != "name"])


def _by_text(reader: Reader, record: type[R], text: str, keys: Sequence[str]) -> R:
    for name in keys:
        try:
            stored = _adapter(record, name).validate_python(text)
        except ValidationError:
            continue
        found = reader.find(record, limit=2, **{name: stored})
        if len(found) == 1:
            return found[0]
        if found:
            raise ConflictError(
                f"there are several {record.entity.plural} with {name} {text}", remedy="name the one meant by its id"
            )
    raise _absent(record, text)


@cache
def _adapter(record: type[Record], name: str) -> TypeAdapter[Any]:
    """Brings a text into the form in which the field is stored, for example a MAC address into lower case."""
    info = record.model_fields[name]
    return TypeAdapter(cast("Any", Annotated[(info.annotation, *info.metadata)]))


@cache
def text_keys(record: type[Record]) -> tuple[str, ...]:
    """The fields a record may be called by: its label and its other unique texts that are not secret."""
    attrs = attributes(record)
    keys = [record.entity.label] if record.entity.label != "id" and _is_key(record) else []
    for name, attr in attrs.items():
        text = "str" in str(record.model_fields[name].annotation)
        if attr.unique and text and not attr.secret and name not in keys:
            keys.append(name)
    return tuple(keys)


def _is_key(record: type[Record]) -> bool:
    """Whether the label is looked up cheaply: unique, or the first to be filtered by."""
    attr = attributes(record)[record.entity.label]
    return attr.unique or attr.filter


def _absent(record: type[Record], which: int | str) -> NotFoundError:
    return NotFoundError(
        f"there is no {record.entity.name} {str(which)[:80]}",
        remedy=f"`openqrm {record.entity.name} list` shows those there are",
    )
