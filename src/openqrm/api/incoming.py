"""What a request says: who, which body, which switches. Everything unknown is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from starlette.requests import ClientDisconnect

from openqrm.api.problems import MediaTypeError, TooLargeError
from openqrm.domain.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.requests import Request

MAX_BODY = 1_000_000
"""Bytes; nothing an operation takes is that large."""
MAX_KEY = 200


@dataclass(frozen=True)
class Switches:
    """The options every change has."""

    dry_run: bool
    wait: bool
    key: str | None
    versions: tuple[str, ...]


def parameters(request: Request, known: Collection[str]) -> dict[str, str]:
    """The query parameters; InvalidError for an unknown, repeated or unstorable one."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise InvalidError(
                f"{name[:80]}: unknown parameter", field=name[:80], remedy=f"known: {', '.join(sorted(known))}"
            )
        if name in found:
            raise InvalidError(f"{name}: given twice", field=name)
        if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise InvalidError(f"{name}: holds a character that cannot be stored", field=name)
        found[name] = value
    return found


def switches(request: Request, *, waits: bool) -> Switches:
    """`dry_run`, `wait`, `Idempotency-Key` and `If-Match`."""
    given = parameters(request, {"dry_run", "wait"} if waits else {"dry_run"})
    key = request.headers.get("idempotency-key")
    if key is not None and not (1 <= len(key) <= MAX_KEY and key.isprintable()):
        raise InvalidError(
            f"Idempotency-Key has 1 to {MAX_KEY} printable characters", field="Idempotency-Key", remedy="use a UUID"
        )
    return Switches(
        dry_run=flag(given, "dry_run"),
        wait=flag(given, "wait"),
        key=key,
        versions=tags(request.headers.get("if-match")),
    )


def flag(given: dict[str, str], name: str) -> bool:
    """A parameter that is `true` or `false`."""
    value = given.get(name, "false")
    if value not in ("true", "false"):
        raise InvalidError(f"{name}: is true or false", field=name)
    return value == "true"


def tags(header: str | None) -> tuple[str, ...]:
    """The entity tags of `If-Match` or `If-None-Match` without quotes; a weak one never matches."""
    if header is None:
        return ()
    return tuple(part.strip().strip('"') for part in header.split(",") if part.strip()) or ("",)


async def body(request: Request) -> dict[str, Any]:
    """The JSON object in the body; empty when there is none. TooLargeError, MediaTypeError, InvalidError."""
    raw = await read(request, MAX_BODY)
    if not raw:
        return {}
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise MediaTypeError(
            f"the body is {kind[:80] or 'of no named type'}", remedy="send application/json", field="Content-Type"
        )
    try:
        found = json.loads(raw, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"the body is not JSON: {str(error)[:200]}", field="body") from error
    if not isinstance(found, dict):
        raise InvalidError("the body is not a JSON object", field="body", remedy="send {} for no arguments")
    return found


async def read(request: Request, limit: int) -> bytes:
    """The body up to a limit; it is not read further than that."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:18]) > limit:
        raise TooLargeError(f"the body has {declared[:18]} bytes; the limit is {limit}")
    parts, length = [], 0
    try:
        async for part in request.stream():
            length += len(part)
            if length > limit:
                raise TooLargeError(f"the body has more than {limit} bytes")
            parts.append(part)
    except ClientDisconnect as error:
        raise InvalidError("the caller went away before the body was complete", field="body") from error
    return b"".join(parts)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")
