"""The schema's history, and bringing a database up to date. One transaction: all of an upgrade happens, or nothing.

How a field is added: one line in `domain/`, then `openqrm database revision -m "what it is for"` writes the revision
from the difference; look at it, commit both. A test compares the outcome with the declarations on both databases.
Plug-ins will have branches of their own, labelled with their names.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from openqrm.domain.errors import UnavailableError
from openqrm.store.database import SqlDatabase
from openqrm.store.faults import translated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

HERE = Path(__file__).parent


def head() -> str:
    """The newest revision this program knows."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def current(database: SqlDatabase) -> str | None:
    """The revision of a database; None for an empty one. UnavailableError."""
    with translated(), database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(database: SqlDatabase, revision: str = "head") -> tuple[str | None, str | None]:
    """Bring the tables up to date; returns the revision before and after.

    Other writers wait. UnavailableError when the database is away, or made by a newer program.
    """
    with translated(), _migrating(database) as connection:
        before = MigrationContext.configure(connection).get_current_revision()
        config = _config(connection=connection, schema=database.schema)
        try:
            command.upgrade(config, revision)
        except CommandError as error:
            raise UnavailableError(
                f"the database is at revision {before}, which this program does not know: {error}",
                remedy="run the version of openqrm that last used this database, or a newer one",
            ) from error
        return before, MigrationContext.configure(connection).get_current_revision()


def write_revision(message: str) -> Path | None:
    """Write a revision with what the declarations have and the newest revision has not; None when nothing differs."""
    with tempfile.TemporaryDirectory() as directory:
        database = SqlDatabase.open(f"sqlite:///{directory}/empty.db", key=bytes(32), durable=False)
        try:
            if head() != "None":
                upgrade(database)
            with database.engine.begin() as connection:
                config = _config(connection=connection, schema=database.schema)
                script = command.revision(config, message, autogenerate=True, rev_id=_next_number())
        finally:
            database.close()
    return Path(script.path) if script and not isinstance(script, list) else None


def _next_number() -> str:
    numbers = [int(file.name[:4]) for file in (HERE / "versions").glob("[0-9]*.py")]
    return f"{max(numbers, default=0) + 1:04}"


def _config(**attributes: Any) -> Config:
    config = Config()
    config.set_main_option("script_location", str(HERE).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.set_main_option("path_separator", "os")
    config.attributes.update(attributes)
    return config


@contextmanager
def _migrating(database: SqlDatabase) -> Iterator[Connection]:
    """A writing transaction in which SQLite lets tables be rebuilt: references are checked at the end instead."""
    with database.engine.connect() as connection:
        if database.dialect != "sqlite":
            with connection.begin():
                yield connection
            return
        raw: Any = connection.connection.driver_connection
        raw.execute("PRAGMA foreign_keys=OFF")
        try:
            with connection.begin():
                yield connection
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                if broken:
                    raise UnavailableError(f"the upgrade would break references: {broken[:3]}")
        finally:
            raw.execute("PRAGMA foreign_keys=ON")
