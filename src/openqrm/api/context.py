"""What the API needs of the rest; `bootstrap` and tests wire it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio
import anyio.to_thread

from openqrm.domain.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from openqrm.api.lists import Lists
    from openqrm.domain.user import Actor
    from openqrm.operations.pipeline import Pipeline

T = TypeVar("T")

THREADS = 24
"""Calls of the database at once; more wait in line and cost no connection."""
LOGINS = 2
"""argon2 takes 19 MiB and a core for each: more at once would only slow all of them down."""
DRY_RUNS = 4
"""Dry runs may ask hosts, which takes long when one does not answer; the threads are for everyone."""
DRY_RUN_SECONDS = 15.0
"""How long a dry run waits for its turn."""


class Authentication(Protocol):
    """Turns credentials into an actor; see `operations.credentials`. Blocking, except `cached`."""

    def cached(self, header: str | None) -> Actor | None:
        """The actor of a header that was seen a moment ago."""

    def authenticate(self, header: str | None, address: str = "") -> Actor:
        """The actor of an `Authorization` header; UnauthenticatedError."""

    def login(self, name: str, password: str, address: str = "") -> tuple[Actor, str]:
        """The actor and the key of a new session; UnauthenticatedError."""

    def logout(self, header: str | None) -> None:
        """End the session; UnauthenticatedError, UnsupportedError for what is no session."""


@dataclass(frozen=True)
class ApiContext:
    """`on_commit` calls back after every commit, in the writing thread, with a commit that has `events`; it returns
    how to stop.
    """

    pipeline: Pipeline
    lists: Lists
    authentication: Authentication
    on_commit: Callable[[Callable[[Any], None]], Callable[[], None]]
    keep_alive_seconds: float = 15
    threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(THREADS))
    logins: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(LOGINS))

    dry_runs: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(DRY_RUNS))
    dry_run_seconds: float = DRY_RUN_SECONDS

    async def call(self, function: Callable[[], T]) -> T:
        """Run something blocking in one of the bounded threads."""
        return await anyio.to_thread.run_sync(function, limiter=self.threads)

    async def verify(self, function: Callable[[], T]) -> T:
        """Run something that checks a password."""
        return await anyio.to_thread.run_sync(function, limiter=self.logins)

    async def dry_run(self, function: Callable[[], T]) -> T:
        """Run a dry run when it is its turn; UnavailableError when that does not come in time."""
        slot = object()  # a borrower of our own: the thread's would hold the limiter from when it starts only
        try:
            with anyio.fail_after(self.dry_run_seconds):
                await self.dry_runs.acquire_on_behalf_of(slot)
        except TimeoutError:
            raise UnavailableError("too many dry runs at once", remedy="try again later") from None
        try:
            return await self.call(function)
        finally:
            self.dry_runs.release_on_behalf_of(slot)
