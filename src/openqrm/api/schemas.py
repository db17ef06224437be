"""JSON schemas of records and arguments, from their declarations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.model import Attr, Record, attributes, hidden_of
from openqrm.operations.arguments import argument_attributes

if TYPE_CHECKING:
    from pydantic import BaseModel

REF = "#/components/schemas/{model}"

Schema = dict[str, Any]


def record_schema(record: type[Record]) -> tuple[Schema, dict[str, Schema]]:
    """The record as the API shows it, and the schemas it refers to. Secret and internal fields are not in it."""
    schema = record.model_json_schema(mode="serialization", ref_template=REF)
    nested: dict[str, Schema] = schema.pop("$defs", {})
    hidden = hidden_of(record)
    properties = {name: part for name, part in schema["properties"].items() if name not in hidden}
    for name, attr in attributes(record).items():
        if name in properties:
            properties[name] = _described(properties[name], attr)
    schema |= {
        "title": record.entity.title,
        "description": record.entity.summary,
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return schema, nested


def arguments_schema(model: type[BaseModel]) -> tuple[Schema, dict[str, Schema]]:
    """The arguments of an operation, and the schemas they refer to. References may be given by name too."""
    schema = model.model_json_schema(mode="validation", ref_template=REF)
    nested: dict[str, Schema] = schema.pop("$defs", {})
    properties: dict[str, Schema] = schema.get("properties", {})
    for name, attr in argument_attributes(model).items():
        part = _described(properties[name], attr)
        if attr.ref:
            part = _by_name(part, attr.ref)
        if attr.secret:
            part = part | {"writeOnly": True, "format": "password"}
        properties[name] = part
    schema |= {"properties": properties, "additionalProperties": False}
    return schema, nested


def _described(part: Schema, attr: Attr) -> Schema:
    """A property with its title, help and unit. A `$ref` keeps its own title in OpenAPI 3.1."""
    found = part | {"title": attr.title}
    help_text = f"{attr.help} ({attr.unit})" if attr.help and attr.unit else attr.help or attr.unit
    return found | {"description": help_text} if help_text else found


def _by_name(part: Schema, kind: str) -> Schema:
    """An id or the name of what it points to."""
    kept = {name: part[name] for name in ("title", "description", "default") if name in part}
    options = part.get("anyOf") or [{key: value for key, value in part.items() if key not in kept}]
    named = {"type": "string", "minLength": 1, "maxLength": 63, "description": f"name of a {kind}"}
    return kept | {"anyOf": [*options, named]}
