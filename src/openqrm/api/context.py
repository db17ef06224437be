"""What the API needs of the rest; `bootstrap` and tests wire it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastapi import APIRouter

    from openqrm.api.lists import Lists
    from openqrm.domain.user import Actor
    from openqrm.operations.pipeline import Pipeline

T = TypeVar("T")

THREADS = 24
"""Calls of the database at once; more wait in line and cost no connection."""
LOGINS = 2
"""argon2 takes 64 MB and a core for each: more at once would only slow all of them down."""


class Authentication(Protocol):
    """Turns credentials into an actor; see `operations.credentials`. Blocking, except `cached`."""

    def cached(self, header: str | None) -> Actor | None:
        """The actor of a header that was seen a moment ago."""

    def authenticate(self, header: str | None, address: str = "") -> Actor:
        """The actor of an `Authorization` header; UnauthenticatedError."""

    def login(self, name: str, password: str, address: str = "") -> tuple[Actor, str]:
        """The actor and the key of a new session; UnauthenticatedError."""


@dataclass(frozen=True)
class ApiContext:
    """`on_commit` calls back after every commit, in the writing thread, with a commit that has `events`; it returns
    how to stop. `routers` are further pages, such as the machines' node API.
    """

    pipeline: Pipeline
    lists: Lists
    authentication: Authentication
    on_commit: Callable[[Callable[[Any], None]], Callable[[], None]]
    routers: Sequence[APIRouter] = ()
    keep_alive_seconds: float = 15
    threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(THREADS))
    logins: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(LOGINS))

    async def call(self, function: Callable[[], T]) -> T:
        """Run something blocking in one of the bounded threads."""
        return await anyio.to_thread.run_sync(function, limiter=self.threads)
