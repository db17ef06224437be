"""Users, their roles and API tokens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from openqrm.domain.model import Attr, Entity, Id, Name, Record


class UserRole(StrEnum):
    """What a user may do. Each role may do what the ones after it may."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"


_RANK = {UserRole.VIEWER: 0, UserRole.OPERATOR: 1, UserRole.ADMIN: 2}


def at_least(role: UserRole, needed: UserRole) -> bool:
    """Whether a role includes another."""
    return _RANK[role] >= _RANK[needed]


class User(Record):
    """Someone who may log in."""

    entity: ClassVar[Entity] = Entity(name="user", plural="users", title="User", summary="Someone who may log in")

    name: Annotated[Name, Attr("Name", unique=True, filter=True, search=True, listed=True, immutable=True)]
    role: Annotated[UserRole, Attr("Role", filter=True, listed=True)] = UserRole.VIEWER
    enabled: Annotated[bool, Attr("Enabled", filter=True, listed=True)] = True
    password_hash: Annotated[str, Field(max_length=512), Attr("Password", secret=True, derived=True)] = ""


class Token(Record):
    """An API token; only its hash is stored."""

    entity: ClassVar[Entity] = Entity(
        name="token",
        plural="tokens",
        title="API token",
        summary="A key for programs",
        unique=(("user_id", "name"),),
    )

    name: Annotated[Name, Attr("Name", filter=True, search=True, listed=True)]
    user_id: Annotated[Id, Attr("User", ref="user", filter=True, listed=True, immutable=True)]
    token_hash: Annotated[str, Field(max_length=128), Attr("Hash", unique=True, secret=True, derived=True)] = ""
    expires_at: Annotated[datetime | None, Attr("Expires", listed=True)] = None
    last_used_at: Annotated[datetime | None, Attr("Last used", listed=True, derived=True)] = None


class EndedSession(Record):
    """A session that was ended by a logout; kept until it would have ended by itself."""

    entity: ClassVar[Entity] = Entity(
        name="ended-session",
        plural="ended-sessions",
        title="Ended session",
        summary="A session that was ended by a logout",
        label="id",
        stored_only=True,
    )

    session_hash: Annotated[str, Field(max_length=128), Attr("Hash", unique=True, secret=True)]
    expires_at: Annotated[datetime, Attr("Expires")]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who calls an operation: a user with a role, or the system itself."""

    name: str
    role: UserRole
    user_id: int | None = None


SYSTEM = Actor(name="system", role=UserRole.ADMIN)
