"""API tokens: the key is shown once, when it is made; only its hash is stored."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from openqrm.domain.errors import ForbiddenError, InvalidError
from openqrm.domain.model import Attr, Id, Name
from openqrm.domain.user import Token, User
from openqrm.operations.authorize import self_or_admin
from openqrm.operations.credentials import new_token
from openqrm.plugin_api.operation import Arguments, Operation

if TYPE_CHECKING:
    from openqrm.plugin_api.operation import Call
    from openqrm.plugin_api.records import Writer


class TokenCreate(Arguments):
    """A key for programs, with the rights of its user."""

    name: Annotated[Name, Attr("Name")]
    user_id: Annotated[Id | None, Attr("User", ref="user", help="empty: the caller")] = None
    days: Annotated[int | None, Field(ge=1, le=3650), Attr("Valid for", unit="days", help="empty: for ever")] = None


class IssuedToken(Token):
    """A new token together with its key, which is not shown again."""

    token: Annotated[
        str | None, Attr("Key", help="shown once: keep it safe; empty in the answer to a repeated call")
    ] = None


def create(writer: Writer, call: Call) -> IssuedToken:
    """ForbiddenError for a token of someone else, unless an admin makes it."""
    asked: TokenCreate = call.arguments
    user_id = asked.user_id if asked.user_id is not None else call.actor.user_id
    if user_id is None:
        raise InvalidError("user_id: the caller is no user", field="user_id", remedy="name the user it is for")
    user = writer.get(User, user_id)
    if not self_or_admin(call.actor, call.operation, user):
        raise ForbiddenError(f"{call.actor.name} may not make tokens of {user.name}", field="user_id")
    key, digest = new_token()
    token = writer.insert(
        Token(name=asked.name, user_id=user.id, token_hash=digest, expires_at=_expiry(writer.now, asked.days))
    )
    shown: dict[str, Any] = token.model_dump()
    return IssuedToken(**shown, token=key)


def _expiry(now: datetime, days: int | None) -> datetime | None:
    return now + timedelta(days=days) if days is not None else None


def remove(writer: Writer, call: Call) -> None:
    """The key is refused from now on."""
    token = call.target
    assert isinstance(token, Token)  # noqa: S101  # the declaration's target
    writer.delete(Token, token.id)


_HERE = "openqrm.operations.core_token"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="token.create",
        title="Make an API token",
        summary="Make a key for programs; it is shown once",
        arguments=TokenCreate,
        creates=IssuedToken,
        permission=self_or_admin,
        act=f"{_HERE}:create",
    ),
    Operation(
        name="token.remove",
        title="Remove an API token",
        summary="Refuse a key from now on",
        target=Token,
        permission=self_or_admin,
        destroys=True,
        act=f"{_HERE}:remove",
    ),
)
