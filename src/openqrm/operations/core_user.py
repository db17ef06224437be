"""Users: made and changed by admins; everyone may change the own password."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from openqrm.domain.errors import ConflictError, InvalidError
from openqrm.domain.model import Attr
from openqrm.domain.user import Token, User, UserRole
from openqrm.operations.arguments import creating, given, updating
from openqrm.operations.authorize import self_or_admin
from openqrm.operations.credentials import hash_password
from openqrm.operations.passwords import MINIMUM
from openqrm.plugin_api.operation import Arguments, Operation, needs

if TYPE_CHECKING:
    from openqrm.plugin_api.operation import Call
    from openqrm.plugin_api.records import Reader, Writer

Password = Annotated[
    str, Field(min_length=MINIMUM, max_length=256), Attr("Password", help=f"at least {MINIMUM} characters", secret=True)
]

UserCreate = creating(User, password=(Password, ...))
UserUpdate = updating(User)


class SetPassword(Arguments):
    """A new password."""

    password: Password


def create(writer: Writer, call: Call) -> User:
    """Someone who may log in; only the argon2 hash of the password is stored."""
    asked = call.arguments
    return writer.insert(
        User(name=asked.name, role=asked.role, enabled=asked.enabled, password_hash=hash_password(asked.password))
    )


def update(writer: Writer, call: Call) -> User:
    """Role and whether the user may log in; the last admin stays one."""
    user = _target(call)
    changes = given(call.arguments)
    keeps = changes.get("role", user.role) is UserRole.ADMIN and changes.get("enabled", user.enabled)
    if not keeps:
        _refuse_last_admin(writer, user)
    return writer.update(user, **changes)


def set_password(writer: Writer, call: Call) -> User:
    """All sessions of the user end; API tokens stay valid until they are removed."""
    user = _target(call)
    if call.arguments.password == user.name:
        raise InvalidError("password: it is the user's name", field="password", remedy="choose another one")
    return writer.update(user, password_hash=hash_password(call.arguments.password))


def remove(writer: Writer, call: Call) -> None:
    """Forget a user with all tokens; what was done in the name stays in the log."""
    user = _target(call)
    _refuse_last_admin(writer, user)
    for token in writer.find(Token, user_id=user.id):
        writer.delete(Token, token.id)
    writer.delete(User, user.id)


def _refuse_last_admin(reader: Reader, user: User) -> None:
    if user.role is not UserRole.ADMIN or not user.enabled:
        return
    if not any(one.id != user.id for one in reader.find(User, role=UserRole.ADMIN, enabled=True, limit=2)):
        raise ConflictError(f"{user.name} is the last admin", remedy="make another user an admin first")


def _target(call: Call) -> User:
    assert isinstance(call.target, User)  # noqa: S101  # the declaration's target
    return call.target


_HERE = "openqrm.operations.core_user"
_ADMIN = needs(UserRole.ADMIN)

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="user.create",
        title="Add a user",
        summary="Let someone log in with a role",
        arguments=UserCreate,
        creates=User,
        permission=_ADMIN,
        act=f"{_HERE}:create",
    ),
    Operation(
        name="user.update",
        title="Change a user",
        summary="Change the role of a user, or lock the user out",
        target=User,
        arguments=UserUpdate,
        permission=_ADMIN,
        act=f"{_HERE}:update",
    ),
    Operation(
        name="user.set-password",
        title="Set a password",
        summary="Set the own password; admins may set any",
        target=User,
        arguments=SetPassword,
        permission=self_or_admin,
        act=f"{_HERE}:set_password",
    ),
    Operation(
        name="user.remove",
        title="Remove a user",
        summary="Forget a user and all tokens of the user",
        target=User,
        permission=_ADMIN,
        destroys=True,
        act=f"{_HERE}:remove",
    ),
)
