"""What a database driver raises, in the words of our errors."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import exc

from openqrm.domain.errors import InvalidError, OpenqrmError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

REMEDY = "nothing was changed; look at the database's log and disk, then try again"

_AWAY_STATES = ("08", "53", "57", "58", "40", "55P03", "25P03")
"""PostgreSQL's SQLSTATE classes for: connection, resources, operator intervention, system, rollback, lock not
available, and a session ended while idle in its transaction. All may pass by themselves."""


class DuplicateFault(Exception):  # noqa: N818 - never leaves the store
    """A unique constraint was violated. `columns` when the driver says them, else `constraint`."""

    def __init__(self, columns: tuple[str, ...], constraint: str | None) -> None:
        super().__init__(columns, constraint)
        self.columns = columns
        self.constraint = constraint


class ReferenceFault(Exception):  # noqa: N818 - never leaves the store
    """A foreign key was violated; which one has to be looked up."""


@contextmanager
def translated() -> Iterator[None]:
    """Run driver calls; what they raise comes out as an `OpenqrmError` or one of the two faults above."""
    try:
        yield
    except exc.IntegrityError as error:
        raise _integrity(error) from error
    except (exc.DataError, OverflowError, UnicodeEncodeError) as error:
        raise InvalidError("a value is out of the range that the database can keep") from error
    except exc.TimeoutError as error:
        raise UnavailableError("all database connections are in use", remedy="try again later") from error
    except exc.PendingRollbackError as error:  # the connection was lost before, and someone went on
        raise UnavailableError("the database went away within the transaction", remedy=REMEDY) from error
    except exc.DBAPIError as error:
        known = _away(error)
        if known is None:
            raise
        raise known from error


def _integrity(error: exc.IntegrityError) -> Exception:
    state = getattr(error.orig, "sqlstate", None)
    diag = getattr(error.orig, "diag", None)
    name = getattr(error.orig, "sqlite_errorname", "")
    if state == "23505":
        return DuplicateFault((), diag.constraint_name if diag else None)
    if state in ("23503", "23001") or name in ("SQLITE_CONSTRAINT_FOREIGNKEY", "SQLITE_CONSTRAINT_TRIGGER"):
        return ReferenceFault()
    if name in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"):
        columns = str(error.orig).partition(": ")[2].split(", ")
        return DuplicateFault(tuple(column.partition(".")[2] for column in columns), None)
    return error


def _away(error: exc.DBAPIError) -> OpenqrmError | None:
    state = getattr(error.orig, "sqlstate", None)
    name = getattr(error.orig, "sqlite_errorname", "")
    if name == "SQLITE_FULL" or state == "53100":
        return UnavailableError(
            "the disk under the database is full", remedy="free space on it; nothing was changed, try again then"
        )
    if name.startswith("SQLITE_BUSY") or state == "55P03":
        return UnavailableError("the database is busy: another transaction lasts too long", remedy="try again later")
    sick = name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_CORRUPT", "SQLITE_NOTADB"))
    lost = isinstance(error, exc.OperationalError | exc.InterfaceError) and state is None and not name
    if sick or lost or error.connection_invalidated or (state or "").startswith(_AWAY_STATES):
        return UnavailableError(f"the database is away: {_first_line(error)}", remedy=REMEDY)
    return None


def _first_line(error: exc.DBAPIError) -> str:
    return (str(error.orig).strip().splitlines() or ["no reason given"])[0]
