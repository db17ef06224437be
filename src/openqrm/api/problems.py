"""Errors as `application/problem+json` (RFC 9457), mapped once by class."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from openqrm.domain.errors import OpenqrmError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.exceptions import HTTPException
    from starlette.requests import Request

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2

TITLES = {
    400: ("bad-request", "The request is malformed."),
    404: ("not-found", "There is no such page."),
    405: ("method-not-allowed", "The page does not take this method."),
    413: ("too-large", "The body is larger than the server accepts."),
    415: ("media-type", "The body has a content type that is not taken here."),
}
"""What HTTP itself refuses before an operation is looked at."""


class TooLargeError(OpenqrmError):
    """The body is larger than the server accepts."""

    code = "too-large"
    status = 413


class TooManyError(OpenqrmError):
    """The caller has too many of these open already."""

    code = "too-many"
    status = 429


class MediaTypeError(OpenqrmError):
    """The body has a content type that is not taken here."""

    code = "media-type"
    status = 415


def problem(status: int, code: str, title: str, **further: Any) -> Response:
    """An error answer."""
    body = {"type": f"urn:openqrm:problem:{code}", "title": title, "status": status, "code": code, **further}
    return Response(json.dumps(body), status_code=status, media_type=MEDIA_TYPE)


def of_error(error: OpenqrmError) -> Response:
    """The answer for a domain error: its status, code, detail, field and remedy."""
    title = (type(error).__doc__ or error.code).strip().splitlines()[0]
    found: dict[str, Any] = {name: text for name, text in error.as_dict().items() if name != "code"}
    fields = getattr(error, "errors", None)
    if fields:
        found["errors"] = fields
    answer = problem(error.status, error.code, title, **found)
    if isinstance(error, UnavailableError):
        answer.headers["Retry-After"] = str(RETRY_SECONDS)
    if error.status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


async def on_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for domain errors."""
    del request
    assert isinstance(error, OpenqrmError)  # noqa: S101  # registered for this class
    return of_error(error)


async def on_http(request: Request, error: Exception) -> Response:
    """Starlette's handler for what routing refuses: unknown pages and methods."""
    http: HTTPException = error  # type: ignore[assignment]  # registered for this class
    code, title = TITLES.get(http.status_code, ("http", "The request was refused."))
    answer = problem(http.status_code, code, title, detail=f"{request.method} {request.url.path}: {http.detail}"[:500])
    headers: Mapping[str, str] = http.headers or {}
    answer.headers.update(headers)
    return answer


async def on_bug(request: Request, error: Exception) -> Response:
    """Everything else is a bug: it is logged here and says nothing more to the caller."""
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(500, "internal", "This is a bug.", detail="the server's log has the details")
