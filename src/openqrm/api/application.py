"""The public API as one ASGI application."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from openqrm import __version__
from openqrm.api import changes, compact, documentation, incoming, openapi, problems, reading, sessions, stream
from openqrm.api.projection import PREFIX, collections, endpoints
from openqrm.domain.errors import OpenqrmError
from openqrm.domain.user import User

if TYPE_CHECKING:
    from starlette.requests import Request

    from openqrm.api.context import ApiContext


def create_app(context: ApiContext) -> FastAPI:
    """Routes of all entities and operations."""
    app = FastAPI(
        title="openQRM",
        version=__version__,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # `/v1/volumes/` names no volume: it must not answer as if it were the list
    )
    app.state.context = context
    app.add_exception_handler(OpenqrmError, problems.on_error)
    app.add_exception_handler(HTTPException, problems.on_http)
    app.add_exception_handler(Exception, problems.on_bug)
    registry = context.pipeline.registry
    document = openapi.document(registry)

    def projected() -> dict[str, Any]:
        return document

    app.openapi = projected  # type: ignore[method-assign]  # FastAPI's own way to replace the document
    _general(app, context)
    page = documentation.page(document)

    async def docs(request: Request) -> Response:
        incoming.parameters(request, ())
        return HTMLResponse(page, headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"})

    app.router.add_route("/docs", docs, methods=["GET"])
    app.router.add_route("/", lambda request: RedirectResponse("/docs"), methods=["GET"])  # noqa: ARG005  # a signpost
    for record in collections(registry):
        collection = f"{PREFIX}/{record.entity.plural}"
        app.router.add_route(collection, reading.listing(record, context), methods=["GET"])
        app.router.add_route(f"{collection}/{{which}}", reading.single(record, context), methods=["GET"])
    app.router.add_route(f"{PREFIX}/operations/{{which}}/steps", reading.steps(context), methods=["GET"])
    for place in sorted(endpoints(registry), key=lambda each: "{" in each.path):
        app.router.add_route(place.path, changes.handler(place, context), methods=[place.method])
    return app


def _general(app: FastAPI, context: ApiContext) -> None:
    """Pages that belong to no entity; before the others, since `events/stream` looks like an event's name."""
    schema = compact.compact(context.pipeline.registry)
    tag = compact.tag(schema)

    async def compact_schema(request: Request) -> Response:
        await sessions.actor_of(request, context)
        incoming.parameters(request, ())
        if tag in incoming.tags(request.headers.get("if-none-match")):
            return Response(status_code=304, headers={"ETag": f'"{tag}"'})
        return changes.as_json(schema, headers={"ETag": f'"{tag}"'})

    async def health(request: Request) -> Response:
        incoming.parameters(request, ())
        await context.call(partial(_look, context))
        return changes.as_json({"status": "ok", "version": __version__})

    async def login(request: Request) -> Response:
        return await sessions.login(request, context)

    async def logout(request: Request) -> Response:
        return await sessions.logout(request, context)

    app.router.add_route(f"{PREFIX}/schema", compact_schema, methods=["GET"])
    app.router.add_route(f"{PREFIX}/health", health, methods=["GET"])
    app.router.add_route(f"{PREFIX}/login", login, methods=["POST"])
    app.router.add_route(f"{PREFIX}/logout", logout, methods=["POST"])
    app.router.add_route(f"{PREFIX}/events/stream", stream.stream(context), methods=["GET"])


def _look(context: ApiContext) -> None:
    """UnavailableError when the database is away."""
    with context.pipeline.database.read() as reader:
        reader.find(User, limit=1)
