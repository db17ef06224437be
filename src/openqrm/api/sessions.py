"""Who calls: bearer tokens, and the login that gives one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse, Response

from openqrm.api import incoming
from openqrm.domain.errors import InvalidError
from openqrm.domain.user import UserRole

if TYPE_CHECKING:
    from starlette.requests import Request

    from openqrm.api.context import ApiContext
    from openqrm.domain.user import Actor


class Login(BaseModel):
    """Name and password."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=63)]
    password: Annotated[str, Field(min_length=1, max_length=256, json_schema_extra={"format": "password"})]


class LoggedIn(BaseModel):
    """The key to send as `Authorization: Bearer TOKEN`, and what it may do."""

    token: str
    name: str
    role: UserRole


async def actor_of(request: Request, context: ApiContext) -> Actor:
    """The caller; UnauthenticatedError without valid credentials."""
    header = request.headers.get("authorization")
    seen = context.authentication.cached(header)
    if seen is not None:
        return seen
    check = partial(context.authentication.authenticate, header, address_of(request))
    if (header or "").lstrip()[:6].lower() == "basic ":
        return await context.verify(check)  # a password, which must not take all threads
    return await context.call(check)


def address_of(request: Request) -> str:
    """Where the caller is, for throttling; empty over a Unix socket."""
    return request.client.host if request.client else ""


async def login(request: Request, context: ApiContext) -> Response:
    """`POST /v1/login`."""
    incoming.parameters(request, ())
    given = await incoming.body(request)
    try:
        asked = Login.model_validate(given, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])[:80] if first["loc"] else "body"
        raise InvalidError(f"{field}: {first['msg']}", field=field) from error
    check = partial(context.authentication.login, asked.name, asked.password, address_of(request))
    actor, token = await context.verify(check)
    answer = LoggedIn(token=token, name=actor.name, role=actor.role)
    return JSONResponse(answer.model_dump(mode="json"), headers={"Cache-Control": "no-store"})


async def logout(request: Request, context: ApiContext) -> Response:
    """`POST /v1/logout`: 204, and the session is refused from now on."""
    incoming.parameters(request, ())
    await context.call(partial(context.authentication.logout, request.headers.get("authorization")))
    return Response(status_code=204)
