"""Lists and single records over HTTP, for every entity alike."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from starlette.responses import Response

from openqrm.api import incoming
from openqrm.api.changes import as_json, shown
from openqrm.api.lists import known_parameters, query_of
from openqrm.api.sessions import actor_of
from openqrm.domain.errors import NotFoundError
from openqrm.domain.operation import Operation, StepRecord
from openqrm.operations.authorize import may_read
from openqrm.operations.lookup import find
from openqrm.operations.versions import version_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from openqrm.api.context import ApiContext
    from openqrm.api.lists import ListQuery, Page
    from openqrm.domain.model import Record
    from openqrm.domain.user import Actor


def listing(record: type[Record], context: ApiContext) -> Callable[[Request], Awaitable[Response]]:
    """`GET /v1/{plural}`."""
    known = known_parameters(record)

    async def handle(request: Request) -> Response:
        actor = await actor_of(request, context)
        query = query_of(record, incoming.parameters(request, known), actor)
        page = await context.call(partial(_page, context, record, query))
        items = [shown(item) for item in page.records]
        return as_json({"items": items, "next": page.next_cursor, "total": page.total, "capped": page.capped})

    return handle


def _page(context: ApiContext, record: type[Record], query: ListQuery) -> Page:
    _enabled(context, record)
    return context.lists(record, query)


def _enabled(context: ApiContext, record: type[Record]) -> None:
    """UnsupportedError for what belongs to a plug-in that is disabled."""
    pipeline, name = context.pipeline, record.entity.name
    owner = pipeline.registry.entity_owners.get(name)
    if owner is not None:
        with pipeline.database.read() as reader:
            pipeline.require_enabled(reader, name, owner)


def single(record: type[Record], context: ApiContext) -> Callable[[Request], Awaitable[Response]]:
    """`GET /v1/{plural}/{id or name}`; 304 when `If-None-Match` names what is there."""

    async def handle(request: Request) -> Response:
        actor = await actor_of(request, context)
        incoming.parameters(request, ())
        found = await context.call(partial(_visible, context, record, request.path_params["which"], actor))
        tag = version_of(found)
        if tag in incoming.tags(request.headers.get("if-none-match")):
            return Response(status_code=304, headers={"ETag": f'"{tag}"'})
        return as_json(shown(found), headers={"ETag": f'"{tag}"'})

    return handle


def steps(context: ApiContext) -> Callable[[Request], Awaitable[Response]]:
    """`GET /v1/operations/{id}/steps`: the plan, with references to secrets masked."""

    async def handle(request: Request) -> Response:
        actor = await actor_of(request, context)
        incoming.parameters(request, ())
        operation = await context.call(partial(_visible, context, Operation, request.path_params["which"], actor))
        found = await context.call(partial(_steps, context, operation.id))
        return as_json({"items": [shown(step) for step in found]})

    return handle


def _steps(context: ApiContext, operation_id: int) -> list[StepRecord]:
    with context.pipeline.database.read() as reader:
        return list(reader.find(StepRecord, order="position", operation_id=operation_id))


def _visible(context: ApiContext, record: type[Record], which: str, actor: Actor) -> Record:
    _enabled(context, record)
    with context.pipeline.database.read() as reader:
        found = find(reader, record, which)
    if not may_read(actor, found):
        raise NotFoundError(f"there is no {record.entity.name} {which[:80]}")
    return found
