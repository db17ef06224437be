"""Arguments of operations: projected from entities, given by id or name, checked before anything acts."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import BaseModel, Field, ValidationError, create_model
from pydantic_core import to_jsonable_python

from openqrm.domain.errors import InvalidError, NotFoundError
from openqrm.domain.model import IN_WORDS, Attr, attributes
from openqrm.operations.lookup import find
from openqrm.plugin_api.operation import Arguments
from openqrm.plugin_api.steps import deferred

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from openqrm.domain.model import Record
    from openqrm.plugin_api.records import Reader

MAX_DEPTH = 32
"""How deep arguments may be nested; deeper input is refused rather than walked."""


class FieldsError(InvalidError):
    """Arguments that do not fit; `errors` has every field at fault, the error itself names the first."""

    def __init__(self, errors: list[dict[str, str]], *, remedy: str | None = None) -> None:
        first = errors[0]
        super().__init__(first["detail"], field=first["field"], remedy=remedy)
        self.errors = errors


def argument_attributes(model: type[BaseModel]) -> dict[str, Attr]:
    """The `Attr` of every argument, in declaration order."""
    return attributes(cast("type[Record]", model))


def _inputs(record: type[Record], *, without: Iterable[str], immutable: bool) -> dict[str, Attr]:
    left_out = set(without)
    return {
        name: attr
        for name, attr in attributes(record).items()
        if not attr.derived and name not in left_out and (immutable or not attr.immutable)
    }


def creating(
    record: type[Record], *, without: Iterable[str] = (), name: str | None = None, **extra: Any
) -> type[Arguments]:
    """The arguments that make a new record: every field that is not derived, with its own default.

    Fields in `without` are not the caller's here. `extra` are further arguments, each `(type, default)`; one that is
    called like a field stands in that field's place, to be described otherwise.
    """
    fields: dict[str, Any] = {}
    for field in _inputs(record, without=without, immutable=True):
        info = record.model_fields[field]
        fields[field] = (info.annotation, info)
    model: type[Arguments] = create_model(
        name or f"{record.__name__}Create",
        __base__=Arguments,
        __doc__=f"A new {record.entity.title}.",
        **(fields | extra),
    )
    return model


def updating(
    record: type[Record], *, without: Iterable[str] = (), name: str | None = None, **extra: Any
) -> type[Arguments]:
    """The arguments that change a record: every field that may change, each left as it is when not given.

    `without` and `extra` as in `creating`: what only an operation of its own may change, such as a volume's size, is
    left out.
    """
    fields: dict[str, Any] = {}
    for field in _inputs(record, without=without, immutable=False):
        info = record.model_fields[field]
        kept = [extra for extra in info.metadata if extra is not None]
        fields[field] = (Annotated[(info.annotation, *kept)], Field(default_factory=_absent))
    model: type[Arguments] = create_model(
        name or f"{record.__name__}Update",
        __base__=Arguments,
        __doc__=f"Changes of a {record.entity.title}; what is not given stays.",
        **(fields | extra),
    )
    return model


def _absent() -> None:
    """A default that never shows: `given` tells which arguments were there."""


def given(arguments: BaseModel) -> dict[str, Any]:
    """The arguments that were really given, by name."""
    return {name: getattr(arguments, name) for name in arguments.model_fields_set}


def validated(
    model: type[BaseModel],
    data: Mapping[str, Any],
    reader: Reader,
    entities: Mapping[str, type[Record]],
    *,
    stored: bool = False,
) -> BaseModel:
    """Arguments as an object of their model; FieldsError naming every field that does not fit.

    A reference (`Attr.ref`) may be given as an id or as a name; names are looked up here. Arguments that were stored
    with an earlier operation may hold references to secrets; a caller's may not, or it could read any secret.
    """
    plain = to_jsonable_python(dict(data))
    _refuse_unstorable(plain)
    if not stored and deferred(plain):
        raise InvalidError("arguments: references to outputs and secrets are for plans only", field="arguments")
    attrs = argument_attributes(model)
    for name, attr in attrs.items():
        value = plain.get(name)
        if attr.ref and isinstance(value, str):
            plain[name] = _reference(attr.ref, name, value, reader, entities)
    try:
        return model.model_validate_json(json.dumps(plain), strict=True)
    except ValidationError as error:
        raise FieldsError([_plain(item) for item in error.errors()], remedy=_remedy(error, attrs)) from error


def _reference(kind: str, field: str, value: str, reader: Reader, entities: Mapping[str, type[Record]]) -> int:
    try:
        return find(reader, entities[kind], value).id
    except NotFoundError as error:
        raise InvalidError(
            f"{field}: {error.detail}", field=field, remedy=f"`openqrm {kind} list` shows those there are"
        ) from error


def _plain(item: Any) -> dict[str, str]:
    field = ".".join(str(part) for part in item["loc"]) or "arguments"
    message = item["msg"].removeprefix("Value error, ")
    words = IN_WORDS.get(item.get("ctx", {}).get("pattern", ""))
    if words:
        message = f"must be {words}"
    return {"field": field, "detail": f"{field}: {message[:1].lower()}{message[1:]}"}


def _remedy(error: ValidationError, attrs: Mapping[str, Attr]) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return f"known arguments: {', '.join(attrs) or 'none'}"
    attr = attrs.get(name)
    what = f"{attr.title}: {attr.help}" if attr and attr.help else (attr.title if attr else name)
    pattern = first.get("ctx", {}).get("pattern")
    shape = f"; it must look like {pattern}" if pattern and pattern not in IN_WORDS else ""
    return f"give {what}{shape}" if first["type"] == "missing" else f"correct {what}{shape}"


def _refuse_unstorable(value: Any, field: str = "arguments", depth: int = 0) -> None:
    """No database stores NUL characters, lone surrogates or infinite numbers in all places; refuse them here."""
    if depth > MAX_DEPTH:
        raise InvalidError(f"{field} is nested more than {MAX_DEPTH} levels deep", field=field)
    if isinstance(value, str):
        if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise InvalidError(f"{field} holds a NUL character or half a surrogate pair", field=field)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidError(f"{field} is not a finite number", field=field)
    elif isinstance(value, dict):
        for name, item in value.items():
            _refuse_unstorable(name, field, depth + 1)
            _refuse_unstorable(item, str(name) if depth == 0 else field, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _refuse_unstorable(item, field, depth + 1)
