"""Bringing a database up to date. One transaction for each history: all of an upgrade happens, or nothing.

How a field is added: one line in `domain/`, then `openqrm database revision -m "what it is for"` writes the revision
from the difference; look at it, commit both. A test compares the outcome with the declarations on both databases.
Plug-ins have histories of their own (`store.histories`), written in the same way with `--plugin NAME`.
"""

from __future__ import annotations

import logging
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command

from openqrm.domain.entities import ENTITIES
from openqrm.domain.errors import OpenqrmError, UnavailableError
from openqrm.domain.plugin_state import PluginPhase, PluginState
from openqrm.engine.plugins.entities import all_entities
from openqrm.store.database import SqlDatabase
from openqrm.store.faults import translated
from openqrm.store.histories import CORE, exists, history_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection

    from openqrm.plugin_api.plugin import Plugin
    from openqrm.store.histories import History

log = logging.getLogger(__name__)


def head() -> str:
    """The newest revision of the core that this program knows."""
    return CORE.head


def current(database: SqlDatabase, history: History = CORE) -> str | None:
    """The revision of a database; None for an empty one. UnavailableError."""
    with translated(), database.engine.connect() as connection:
        return history.current(connection)


def upgrade(database: SqlDatabase, revision: str = "head", history: History = CORE) -> tuple[str | None, str | None]:
    """Bring the tables up to date; returns the revision before and after.

    Other writers wait. UnavailableError when the database is away, or made by a newer program.
    """
    with translated(), _migrating(database) as connection:
        return history.upgrade(connection, database.schema, revision)


def upgrade_plugins(database: SqlDatabase, plugins: Iterable[Plugin]) -> dict[str, str]:
    """Bring the tables of plug-ins up to date where there are any, or must be; by name, why that failed.

    Tables that were kept when a plug-in was disabled are upgraded too, so that it can be enabled again.
    """
    with database.read() as reader:
        disabled = {row.name for row in reader.find(PluginState, state=PluginPhase.DISABLED)}
        known = {row.name for row in reader.find(PluginState)}
        enabled = known - disabled
    failed: dict[str, str] = {}
    for plugin in plugins:
        if not plugin.entities:
            continue
        try:
            with database.engine.connect() as connection:
                wanted = plugin.name in enabled or exists(connection, history_of(plugin))
            if wanted:
                upgrade(database, history=history_of(plugin))
        except Exception as error:  # a third party's revision may raise anything, and must not stop the controller
            log.exception("the tables of plug-in %s cannot be brought up to date", plugin.name)
            why = error.detail if isinstance(error, OpenqrmError) else f"{type(error).__name__}: {error}"
            failed[plugin.name] = f"its tables cannot be brought up to date: {why}"
    return failed


def write_revision(message: str, plugin: Plugin | None = None) -> Path | None:
    """Write a revision with what the declarations have and the newest revision has not; None when nothing differs."""
    history = history_of(plugin) if plugin else CORE
    history.folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        records = all_entities((plugin,)) if plugin else ENTITIES
        database = SqlDatabase.open(f"sqlite:///{directory}/empty.db", records, bytes(32), durable=False)
        try:
            for one in dict.fromkeys((CORE, history)):
                if one.head != "None":
                    upgrade(database, history=one)
            with database.engine.begin() as connection:
                config = history.config(connection=connection, schema=database.schema)
                script = command.revision(
                    config, message, autogenerate=True, rev_id=_next_number(history), version_path=str(history.folder)
                )
        finally:
            database.close()
    return Path(script.path) if script and not isinstance(script, list) else None


def _next_number(history: History) -> str:
    numbers = [int(file.name[:4]) for file in history.folder.glob("[0-9]*.py")]
    return f"{max(numbers, default=0) + 1:04}"


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
