"""Who may see and do what. Roles decide; users and tokens are seen by admins and by their owners alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import ForbiddenError, NotFoundError
from openqrm.domain.user import Actor, Token, User, UserRole, at_least

if TYPE_CHECKING:
    from openqrm.domain.model import Record
    from openqrm.domain.operation import Operation as OperationRecord
    from openqrm.operations.registry import Registry
    from openqrm.plugin_api.operation import Operation
    from openqrm.plugin_api.records import Reader


def visible(actor: Actor, record: type[Record]) -> dict[str, Any]:
    """The condition a list must be narrowed by for this actor; empty: everything is visible."""
    if at_least(actor.role, UserRole.ADMIN):
        return {}
    own = -1 if actor.user_id is None else actor.user_id
    if issubclass(record, User):
        return {"id": own}
    if issubclass(record, Token):
        return {"user_id": own}
    return {}


def may_read(actor: Actor, record: Record) -> bool:
    """Whether the actor may know that this record exists."""
    return all(getattr(record, name) == value for name, value in visible(actor, type(record)).items())


def authorize(operation: Operation, actor: Actor, target: Record | None) -> None:
    """ForbiddenError unless the actor may do this; NotFoundError when the target is not even visible."""
    if target is not None and not may_read(actor, target):
        raise NotFoundError(f"there is no such {type(target).entity.name}")
    if not operation.permission(actor, operation.name, target):
        raise ForbiddenError(
            f"{actor.name} is {actor.role} and may not do {operation.name}",
            remedy="ask an admin for the role or to do it",
        )


def authorize_again(registry: Registry, reader: Reader, actor: Actor, asked: OperationRecord) -> None:
    """ForbiddenError, NotFoundError: who may not do an operation may neither stop it nor make it go on.

    One whose declaration is gone with its plug-in is the business of admins.
    """
    declared = registry.operations.get(asked.name)
    if declared is None:
        if not at_least(actor.role, UserRole.ADMIN):
            raise ForbiddenError(f"{asked.name} is not known any more: ask an admin")
        return
    kind = registry.entities.get(asked.target_kind)
    found = reader.find(kind, limit=1, id=asked.target_id) if kind and asked.target_id is not None else ()
    authorize(declared, actor, found[0] if found else None)


def self_or_admin(actor: Actor, operation: str, target: Record | None) -> bool:
    """A permission for one's own user and tokens; admins may do it to all."""
    del operation
    if at_least(actor.role, UserRole.ADMIN):
        return True
    if isinstance(target, User):
        return target.id == actor.user_id
    if isinstance(target, Token):
        return target.user_id == actor.user_id
    return target is None and actor.user_id is not None
