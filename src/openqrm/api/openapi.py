"""The OpenAPI 3.1 document: a projection of the registry, with every answer that can come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pydantic import TypeAdapter

from openqrm import __version__
from openqrm.api import lists, problems
from openqrm.api.projection import PREFIX, Endpoint, collections, endpoints
from openqrm.api.schemas import REF, arguments_schema, record_schema
from openqrm.api.sessions import LoggedIn, Login
from openqrm.domain.model import attributes
from openqrm.operations.arguments import argument_attributes

if TYPE_CHECKING:
    from openqrm.api.schemas import Schema
    from openqrm.domain.model import Record
    from openqrm.operations.registry import Registry

_PROBLEM: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "What went wrong (RFC 9457), and what to do about it.",
    "required": ["type", "title", "status", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "stable; programs decide on it"},
        "detail": {"type": "string"},
        "field": {"type": "string", "description": "the argument at fault"},
        "remedy": {"type": "string", "description": "what to do about it"},
        "output": {"type": "string", "description": "of a failed command"},
        "exit_status": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "every argument at fault",
            "items": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    },
}
_REFUSALS = {
    401: "No valid bearer token",
    403: "The caller may not do this",
    404: "There is no such thing",
    405: "The page does not take this method",
    409: "The state, another holder or a missing capability is in the way",
    412: "The record is not the one named in If-Match",
    413: "The body is too large",
    415: "The body is not JSON",
    429: "The caller has too many event streams open",
    422: "An argument does not fit; `field` names it",
    502: "A command on a host failed; `output` has what it said",
    503: "The database is away, or too many dry runs or event streams are open; try again after Retry-After seconds",
    504: "A host does not answer, or not in the time of a dry run",
}
_READING = (401, 403, 404, 422, 503)
_CHANGING = (401, 403, 404, 409, 412, 413, 415, 422, 502, 503, 504)
_WHICH = {
    "name": "which",
    "in": "path",
    "required": True,
    "description": "id or name",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[^/]+$"},
}


class Document:
    """Collects paths and components."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.schemas: dict[str, Schema] = {"Problem": _PROBLEM}
        self.paths: dict[str, dict[str, Any]] = {}

    def add(self, path: str, method: str, body: dict[str, Any]) -> None:
        """One method of one path."""
        self.paths.setdefault(path, {})[method.lower()] = body

    def record(self, record: type[Record]) -> Schema:
        """A reference to a record's schema, which is added when it is new."""
        name = record.__name__
        if name not in self.schemas:
            schema, nested = record_schema(record)
            self.schemas |= nested | {name: schema}
        return {"$ref": REF.format(model=name)}

    def component(self, name: str, schema: Schema, nested: dict[str, Schema]) -> Schema:
        """A reference to a schema, which is added."""
        self.schemas |= nested | {name: schema}
        return {"$ref": REF.format(model=name)}


def document(registry: Registry) -> dict[str, Any]:
    """The whole document."""
    made = Document(registry)
    _general(made)
    for record in collections(registry):
        _reading(made, record)
    _operation_steps(made)
    for endpoint in endpoints(registry):
        made.add(endpoint.path, endpoint.method, _change(made, endpoint))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "openQRM",
            "version": __version__,
            "description": "Datacentre management. Every change is an operation; what takes time answers 202 with the "
            "operation to follow.",
        },
        "paths": dict(sorted(made.paths.items())),
        "components": {
            "schemas": dict(sorted(made.schemas.items())),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"bearer": []}],
    }


def _refusals(statuses: tuple[int, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status in statuses:
        found[str(status)] = {
            "description": _REFUSALS[status],
            "content": {problems.MEDIA_TYPE: {"schema": {"$ref": REF.format(model="Problem")}}},
        }
    if "503" in found:
        found["503"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return found


def _json(description: str, schema: Schema, **headers: str) -> dict[str, Any]:
    found: dict[str, Any] = {"description": description, "content": {"application/json": {"schema": schema}}}
    if headers:
        found["headers"] = {
            name.replace("_", "-"): {"description": text, "schema": {"type": "string"}}
            for name, text in headers.items()
        }
    return found


def _reading(made: Document, record: type[Record]) -> None:
    entity, schema = record.entity, made.record(record)
    page = {
        "type": "object",
        "required": ["items", "next", "total", "capped"],
        "additionalProperties": False,
        "properties": {
            "items": {"type": "array", "items": schema},
            "next": {"type": ["string", "null"], "description": "cursor of the page that follows"},
            "total": {"type": "integer", "description": "how many there are in all, counted up to a limit"},
            "capped": {"type": "boolean", "description": "there are more than `total`"},
        },
    }
    made.add(
        f"{PREFIX}/{entity.plural}",
        "get",
        {
            "operationId": f"{entity.name}.list",
            "summary": f"List {entity.plural}",
            "tags": [entity.name],
            "parameters": list_parameters(record),
            "responses": {"200": _json("A page", page)} | _refusals(_READING),
        },
    )
    made.add(
        f"{PREFIX}/{entity.plural}/{{which}}",
        "get",
        {
            "operationId": f"{entity.name}.show",
            "summary": f"Show one {entity.name}",
            "tags": [entity.name],
            "parameters": [_WHICH, _header("If-None-Match", "answer 304 when nothing changed")],
            "responses": {
                "200": _json(entity.summary, schema, ETag="for If-Match and If-None-Match"),
                "304": {"description": "It is still what If-None-Match names"},
            }
            | _refusals((*_READING, 409)),
        },
    )


def list_parameters(record: type[Record]) -> list[dict[str, Any]]:
    """Parameters of a list. The suffixed forms of filters are described once and taken by all."""
    attrs = attributes(record)
    sortable = [sign + name for name in lists.filters(record) for sign in ("", "-")]
    whole = {"type": "integer", "minimum": 1, "maximum": lists.MAX_LIMIT, "default": lists.DEFAULT_LIMIT}
    order = {"type": "string", "enum": sortable, "default": lists.default_sort(record)}
    found = [
        _query("limit", whole, "items in a page"),
        _query("cursor", {"type": "string", "maxLength": 4000}, "`next` of the page before"),
        _query("sort", order, "a field; `-` in front: descending"),
        _query("q", {"type": "string", "maxLength": lists.MAX_SEARCH}, "words to search for"),
    ]
    for name in lists.filters(record):
        schema = TypeAdapter(cast("Any", record.model_fields[name].annotation)).json_schema()
        schema.pop("$defs", None)
        plain = schema if "type" in schema else {"type": "string"}
        text = f"{attrs[name].title}; also {name}__ne, __lt, __le, __gt, __ge, __in (a,b), __null (true, false)"
        found.append(_query(name, plain, text))
    return found


def _operation_steps(made: Document) -> None:
    step = made.record(made.registry.entity("step"))
    schema = {"type": "object", "required": ["items"], "properties": {"items": {"type": "array", "items": step}}}
    made.add(
        f"{PREFIX}/operations/{{which}}/steps",
        "get",
        {
            "operationId": "operation.steps",
            "summary": "The plan of an operation, secrets masked",
            "tags": ["operation"],
            "parameters": [_WHICH],
            "responses": {"200": _json("All steps in order", schema)} | _refusals((*_READING, 409)),
        },
    )


def _change(made: Document, endpoint: Endpoint) -> dict[str, Any]:
    operation = endpoint.operation
    schema, nested = arguments_schema(operation.arguments)
    for field, attr in argument_attributes(operation.arguments).items():
        known = made.registry.known.get(attr.known, ())
        if known:
            schema["properties"][field]["description"] = f"{attr.help or attr.title}; installed: {', '.join(known)}"
    name = "".join(part.capitalize() for part in operation.name.replace(".", "-").split("-")) + "Arguments"
    parameters = [_query("dry_run", {"type": "boolean"}, "only say what would be done")]
    if operation.waits:
        parameters.append(_query("wait", {"type": "boolean"}, "wait for a conflict to go away"))
    parameters.append(_header("Idempotency-Key", "the same call under the same key is done once", most=200))
    if operation.target is not None:
        parameters = [_WHICH, *parameters, _header("If-Match", "refuse unless the record has this ETag")]
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.title,
        "description": operation.summary,
        "tags": [operation.kind],
        "parameters": parameters,
        "responses": _answers(made, endpoint) | _refusals(_CHANGING),
        "x-destroys": operation.destroys,
        **({"x-destroys-when": dict(operation.destroys_when)} if operation.destroys_when else {}),
        **({"x-destroys-given": list(operation.destroys_given)} if operation.destroys_given else {}),
    }
    if schema["properties"]:
        described["requestBody"] = {
            "required": bool(schema.get("required")),
            "content": {"application/json": {"schema": made.component(name, schema, nested)}},
        }
    return described


def _answers(made: Document, endpoint: Endpoint) -> dict[str, Any]:
    operation = endpoint.operation
    of_entity = made.registry.entities.get(operation.kind)
    record = operation.creates or operation.target or of_entity
    shown = made.record(record) if record else {"type": "object"}
    planned = {
        "type": "object",
        "title": "Dry run",
        "required": ["record", "steps"],
        "properties": {
            "record": {"anyOf": [shown, {"type": "null"}]},
            "steps": {"type": "array", "items": {"type": "object"}},
        },
    }
    tagged = {"ETag": "for If-Match", "Location": "of the record"}
    once = operation.target is not None and 202 not in endpoint.success
    found = {"200": _json("With dry_run: what would be done", {"anyOf": [shown, planned]} if once else planned)}
    if 201 in endpoint.success:
        found["201"] = _json("Done", shown, **tagged)
    if 202 in endpoint.success:
        operations = made.record(made.registry.entity("operation"))
        found["202"] = _json("Queued: follow the operation", operations, Location="of the operation")
    if 204 in endpoint.success:
        found["204"] = {"description": "Done; nothing is left of it"}
    return found


def _general(made: Document) -> None:
    """Pages that belong to no entity."""
    _login(made)
    _logout(made)
    _health(made)
    _schema(made)
    _stream(made)


def _login(made: Document) -> None:
    login = made.component("Login", Login.model_json_schema(ref_template=REF), {})
    logged_in = LoggedIn.model_json_schema(ref_template=REF)
    answered = made.component("LoggedIn", logged_in, logged_in.pop("$defs", {}))
    made.add(
        f"{PREFIX}/login",
        "post",
        {
            "operationId": "login",
            "summary": "Get a session token for name and password",
            "security": [],
            "requestBody": {"required": True, "content": {"application/json": {"schema": login}}},
            "responses": {"200": _json("The token", answered)} | _refusals((401, 413, 415, 422, 503)),
        },
    )


def _logout(made: Document) -> None:
    made.add(
        f"{PREFIX}/logout",
        "post",
        {
            "operationId": "logout",
            "summary": "End the session whose token is sent; API tokens are removed instead",
            "responses": {"204": {"description": "The session has ended"}} | _refusals((401, 409, 422, 503)),
        },
    )


def _health(made: Document) -> None:
    health = {
        "type": "object",
        "required": ["status", "version"],
        "properties": {"status": {"type": "string"}, "version": {"type": "string"}},
    }
    made.add(
        f"{PREFIX}/health",
        "get",
        {
            "operationId": "health",
            "summary": "Whether the server and its database answer",
            "security": [],
            "responses": {"200": _json("Both do", health)} | _refusals((422, 503)),
        },
    )


def _schema(made: Document) -> None:
    made.add(
        f"{PREFIX}/schema",
        "get",
        {
            "operationId": "schema",
            "summary": "Entities and operations in short, for command lines",
            "parameters": [_header("If-None-Match", "answer 304 when nothing changed")],
            "responses": {
                "200": _json("The schema", {"type": "object"}, ETag="for If-None-Match"),
                "304": {"description": "It is still the same"},
            }
            | _refusals((401, 422, 503)),
        },
    )


def _stream(made: Document) -> None:
    made.add(
        f"{PREFIX}/events/stream",
        "get",
        {
            "operationId": "event.stream",
            "summary": "Events as they are committed (server-sent events); never ends",
            "tags": ["event"],
            "parameters": [
                _header("Last-Event-ID", "go on behind this event"),
                _query("after", {"type": "integer", "minimum": 0}, "the same as a parameter"),
            ],
            "responses": {
                "200": {"description": "The stream", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
            }
            | _refusals((401, 422, 429, 503)),
        },
    )


def _query(name: str, schema: Schema, text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}


def _header(name: str, text: str, most: int = 1000) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1, "maxLength": most}
    return {"name": name, "in": "header", "required": False, "description": text, "schema": schema}
