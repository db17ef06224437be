"""Every error a caller can meet, each with a stable code, the field at fault and a remedy.

Surfaces (REST, CLI, forms) map these once, by class; nothing else is shown to a user. A 500 is a bug.
"""

from __future__ import annotations

from typing import ClassVar


class OpenqrmError(Exception):
    """Base of all errors with a meaning for the caller."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(self, detail: str, *, field: str | None = None, remedy: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.remedy = remedy

    def as_dict(self) -> dict[str, str]:
        """The error as plain data, for journals and answers."""
        pairs = {"code": self.code, "detail": self.detail, "field": self.field, "remedy": self.remedy}
        return {name: text for name, text in pairs.items() if text is not None}


class InvalidError(OpenqrmError):
    """An argument is malformed or out of its limits."""

    code = "invalid"
    status = 422


class UnauthenticatedError(OpenqrmError):
    """No valid credentials were given."""

    code = "unauthenticated"
    status = 401


class ForbiddenError(OpenqrmError):
    """The caller is known and may not do this."""

    code = "forbidden"
    status = 403


class NotFoundError(OpenqrmError):
    """The named thing does not exist."""

    code = "not-found"
    status = 404


class ConflictError(OpenqrmError):
    """The thing exists, but its state or another holder is in the way now."""

    code = "conflict"
    status = 409


class UnsupportedError(OpenqrmError):
    """The type does not declare this capability."""

    code = "unsupported"
    status = 409


class NoCapacityError(ConflictError):
    """Nothing in the pool fits; the detail says what each candidate lacks."""

    code = "no-capacity"


class StaleError(ConflictError):
    """A later generation or epoch exists; this actor is no longer the owner and must change nothing."""

    code = "stale"


class MissingDependencyError(ConflictError):
    """A command, plug-in or service that is needed is absent; the remedy installs it."""

    code = "missing-dependency"


class CommandFailedError(OpenqrmError):
    """A command on a host ended with an error; its output is kept."""

    code = "command-failed"
    status = 502

    def __init__(
        self, detail: str, *, exit_status: int | None = None, output: str = "", remedy: str | None = None
    ) -> None:
        super().__init__(detail, remedy=remedy)
        self.exit_status = exit_status
        self.output = output

    def as_dict(self) -> dict[str, str]:
        """The error with the failed command's output."""
        status = {} if self.exit_status is None else {"exit_status": str(self.exit_status)}
        return super().as_dict() | {"output": self.output} | status


class UnreachableError(OpenqrmError):
    """A host or service does not answer; trying again later may succeed."""

    code = "unreachable"
    status = 504


class TimeoutPassedError(OpenqrmError):
    """A condition did not come true before its deadline."""

    code = "timeout"
    status = 504


class FailedError(OpenqrmError):
    """What was waited for was tried and did not succeed: it can no longer come true by waiting."""

    code = "failed"
    status = 502


class UnavailableError(OpenqrmError):
    """Our own database is away or full; nothing was changed."""

    code = "unavailable"
    status = 503
