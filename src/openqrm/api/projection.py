"""Where each operation and entity is found over HTTP. Everything here follows from the declarations alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openqrm.operations.registry import CREATING_VERBS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openqrm.domain.model import Record
    from openqrm.operations.registry import Registry
    from openqrm.plugin_api.operation import Operation

PREFIX = "/v1"


@dataclass(frozen=True)
class Endpoint:
    """An operation's method and path; `{which}` in it is the id or name of the target."""

    operation: Operation
    method: str
    path: str

    @property
    def success(self) -> tuple[int, ...]:
        """The statuses of a call that went well; 200 is also a dry run's."""
        if self.operation.phases:
            return (200, 202)
        if self.operation.name == "operation.rerun":
            return (200, 202)
        if self.operation.target is None:
            return (200, 201)
        return (200, 204)


def endpoint(registry: Registry, operation: Operation) -> Endpoint:
    """create → POST on the collection, update → PATCH, remove → DELETE, every other verb → POST below the record.

    What is allocated rather than made has `release` in place of `remove`.
    """
    collection = f"{PREFIX}/{registry.plural(operation.kind)}"
    if operation.target is None:
        below = "" if operation.verb in CREATING_VERBS else f"/{operation.verb}"
        return Endpoint(operation, "POST", f"{collection}{below}")
    record = f"{collection}/{{which}}"
    removable = f"{operation.kind}.remove" in registry.operations
    if operation.verb == "update":
        return Endpoint(operation, "PATCH", record)
    if operation.verb == "remove" or (operation.verb == "release" and not removable):
        return Endpoint(operation, "DELETE", record)
    return Endpoint(operation, "POST", f"{record}/{operation.verb}")


def endpoints(registry: Registry) -> tuple[Endpoint, ...]:
    """All that surfaces offer; ValueError when two operations would share a method and path."""
    found = tuple(endpoint(registry, operation) for operation in registry.offered())
    places = [(each.method, each.path) for each in found]
    doubled = {place for place in places if places.count(place) > 1}
    if doubled:
        raise ValueError(f"two operations would answer {sorted(doubled)}")
    return found


def collections(registry: Registry) -> Iterator[type[Record]]:
    """The entities that have pages of their own."""
    return (record for record in registry.entities.values() if not record.entity.stored_only)
