"""The registry in short: all that a command line needs to offer verbs, options and tables."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from openqrm.api.lists import default_sort, filters
from openqrm.api.projection import collections, endpoint
from openqrm.api.schemas import arguments_schema, record_schema
from openqrm.domain.model import attributes
from openqrm.operations.arguments import argument_attributes

if TYPE_CHECKING:
    from openqrm.api.schemas import Schema
    from openqrm.domain.model import Record
    from openqrm.operations.registry import Registry
    from openqrm.plugin_api.operation import Operation

VERSION = 1
"""Of this format; a client that knows another one says so."""


def compact(registry: Registry) -> dict[str, Any]:
    """Entities with their columns, operations with their options."""
    return {
        "version": VERSION,
        "entities": {record.entity.name: _entity(record) for record in collections(registry)},
        "operations": [_operation(registry, operation) for operation in registry.offered()],
    }


def tag(schema: dict[str, Any]) -> str:
    """The schema's entity tag."""
    return hashlib.blake2b(json.dumps(schema, sort_keys=True).encode(), digest_size=12).hexdigest()


def _entity(record: type[Record]) -> dict[str, Any]:
    entity = record.entity
    schema, nested = record_schema(record)
    attrs = {name: attr for name, attr in attributes(record).items() if name in schema["properties"]}
    return {
        "plural": entity.plural,
        "title": entity.title,
        "summary": entity.summary,
        "label": entity.label,
        "columns": [[name, attr.title, attr.unit, attr.ref or ""] for name, attr in attrs.items() if attr.listed],
        "refs": {name: attr.ref for name, attr in attrs.items() if attr.ref},
        "sort": default_sort(record),
        "choices": {name: found for name in filters(record) if (found := _choices(schema["properties"][name], nested))},
        "titles": {name: attr.title for name, attr in attrs.items()},
        "filters": list(filters(record)),
    }


def _operation(registry: Registry, operation: Operation) -> dict[str, Any]:
    place = endpoint(registry, operation)
    return {
        "name": operation.name,
        "kind": operation.kind,
        "verb": operation.verb,
        "title": operation.title,
        "summary": operation.summary,
        "method": place.method,
        "path": place.path,
        "target": operation.target.entity.name if operation.target else "",
        "destroys": operation.destroys,
        "destroys_when": dict(operation.destroys_when),
        "destroys_given": list(operation.destroys_given),
        "waits": operation.waits,
        "reports": operation.reports,
        "queued": bool(operation.phases) or operation.name == "operation.rerun",
        "arguments": _options(registry, operation),
    }


def _options(registry: Registry, operation: Operation) -> list[dict[str, Any]]:
    schema, nested = arguments_schema(operation.arguments)
    attrs = argument_attributes(operation.arguments)
    required = set(schema.get("required", ()))
    options: list[dict[str, Any]] = []
    for name, part in schema["properties"].items():
        described = {
            "help": part.get("description", ""),
            "title": attrs[name].title,
            "secret": attrs[name].secret,
            "ref": attrs[name].ref or "",
            "required": name in required,
            "known": list(registry.known.get(attrs[name].known, ())),
        }
        options += _of_property((name,), part, nested, described)
    return _with_shorts(options)


def _of_property(
    path: tuple[str, ...], part: Schema, nested: dict[str, Schema], described: dict[str, Any]
) -> list[dict[str, Any]]:
    """One option, or one for each field of a nested object: `--requirements-cpus`."""
    plain = _resolved(part, nested)
    if plain.get("properties"):
        found: list[dict[str, Any]] = []
        for name, inner in plain["properties"].items():
            title = f"{described['title']}: {inner.get('title', name)}"
            further = described | {"required": False, "title": title, "help": inner.get("description", "")}
            found += _of_property((*path, name), inner, nested, further)
        return found
    item = _resolved(plain.get("items", {}), nested)
    option = {
        "path": list(path),
        "option": _option(path, described["ref"]),
        "type": item.get("type", "string") if plain.get("type") == "array" else plain.get("type", "string"),
        "many": plain.get("type") == "array",
        "choices": plain.get("enum") or item.get("enum") or [],
    }
    return [option | described]


def _choices(part: Schema, nested: dict[str, Schema]) -> list[str]:
    return list(_resolved(part, nested).get("enum", ()))


def _option(path: tuple[str, ...], ref: str) -> str:
    """The option's spelling: `image_id` that refers to an image is `--image`."""
    text = "-".join(path).replace("_", "-")
    return text.removesuffix("-id") if ref else text


def _resolved(part: Schema, nested: dict[str, Schema]) -> Schema:
    """The schema behind a reference, or the first of several that is not null."""
    if "$ref" in part:
        return _resolved(nested.get(part["$ref"].rsplit("/", 1)[-1], {}), nested)
    for option in part.get("anyOf", ()):
        if option.get("type") != "null":
            return _resolved(option, nested)
    return part


def _with_shorts(options: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each first letter goes to the first option that has it; `-h` is always help."""
    taken = {"h"}
    found = []
    for option in options:
        letter = option["option"][0]
        short = letter if letter not in taken and len(option["path"]) == 1 else ""
        taken.add(short)
        found.append(option | {"short": short})
    return found
