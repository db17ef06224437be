"""Calls of operations over HTTP: one generic handler, made for each endpoint."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from openqrm.api import incoming
from openqrm.api.projection import PREFIX
from openqrm.api.sessions import actor_of
from openqrm.domain.model import public
from openqrm.operations.enqueue import shown_body
from openqrm.operations.versions import version_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from openqrm.api.context import ApiContext
    from openqrm.api.projection import Endpoint
    from openqrm.domain.model import Record
    from openqrm.operations.pipeline import Outcome


_MAY_REFER = {"operation": ("arguments",), "step": ("body",)}
"""Fields of records that may hold references to secrets, which are masked."""


def handler(endpoint: Endpoint, context: ApiContext) -> Callable[[Request], Awaitable[Response]]:
    """The handler of an endpoint."""
    operation = endpoint.operation

    async def handle(request: Request) -> Response:
        actor = await actor_of(request, context)
        switches = incoming.switches(request, waits=operation.waits)
        arguments = await incoming.body(request)
        call = partial(
            context.pipeline.call,
            operation.name,
            actor,
            request.path_params.get("which"),
            arguments,
            idempotency_key=switches.key,
            dry_run=switches.dry_run,
            wait=switches.wait,
            versions=switches.versions,
        )
        run = context.dry_run if switches.dry_run else context.call
        return answer(await run(call), endpoint, context)

    return handle


def answer(outcome: Outcome, endpoint: Endpoint, context: ApiContext) -> Response:
    """202 with the queued operation, 201 or 200 with the record, 204 when nothing is left of it."""
    if outcome.status == "planned":
        record = shown(outcome.record) if outcome.record is not None else None
        return as_json({"record": record, "steps": outcome.steps or []}, 200)
    if outcome.status == "accepted" and outcome.operation is not None:
        location = f"{PREFIX}/operations/{outcome.operation.id}"
        return as_json(shown(outcome.operation), 202, {"Location": location})
    if outcome.record is None:
        return Response(status_code=204)
    made = endpoint.operation.target is None
    headers = {"ETag": f'"{version_of(outcome.record)}"'}
    if made:
        plural = context.pipeline.registry.plural(outcome.record.entity.name)
        headers["Location"] = f"{PREFIX}/{plural}/{outcome.record.id}"
    return as_json(shown(outcome.record), 201 if made else 200, headers)


def shown(record: Record) -> dict[str, Any]:
    """A record as the API shows it."""
    data = public(record)
    for name in _MAY_REFER.get(record.entity.name, ()):
        data[name] = shown_body(data[name])
    return data


def as_json(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer, compact."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return Response(text, status_code=status, media_type="application/json", headers=headers)
