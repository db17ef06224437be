"""Forms of the node protocol: shell assignments, problems, bearer tokens."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from openqrm.domain.errors import OpenqrmError


def assignments(values: Mapping[str, str | int]) -> str:
    """One `NAME='value'` a line, each value quoted for a POSIX shell, also those that need no quotes."""
    return "".join(f"{name}={_quoted(str(value))}\n" for name, value in values.items())


def _quoted(text: str) -> str:
    safe = text.replace("\0", "")
    return f"'{safe}'" if shlex.quote(safe) == safe else shlex.quote(safe)


def plain(text: str, status: int = 200) -> Response:
    """A text answer that nobody may keep."""
    return Response(text, status, {"Cache-Control": "no-store"}, "text/plain; charset=utf-8")


def problem(status: int, code: str, detail: str, field: str | None = None, remedy: str | None = None) -> Response:
    """An error as application/problem+json (RFC 9457)."""
    body: dict[str, str | int] = {
        "type": "about:blank",
        "title": code,
        "code": code,
        "status": status,
        "detail": detail,
    }
    if field is not None:
        body["field"] = field
    if remedy is not None:
        body["remedy"] = remedy
    headers = {"Retry-After": "5"} if status == 503 else {}
    return Response(json.dumps(body), status, headers, "application/problem+json")


def failed(error: OpenqrmError) -> Response:
    """A domain error as an answer."""
    return problem(error.status, error.code, error.detail, error.field, error.remedy)


def bearer(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The token of an Authorization header; empty when there is none."""
    for name, value in headers:
        if name.lower() == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            return token.strip() if scheme.lower() == "bearer" else ""
    return ""
