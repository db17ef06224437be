"""Histories of tables: the core's, and one of each plug-in that has entities.

Each has a folder of Alembic revisions and a version table of its own, so that a plug-in that is not installed any more
is nobody's trouble. Everything here works on a connection, within the transaction that the caller has begun.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import MetaData, Table, delete, inspect

from openqrm.domain.errors import UnavailableError
from openqrm.engine.plugins.catalogue import path_in
from openqrm.store.faults import translated
from openqrm.store.records import SqlWriter
from openqrm.store.tables import table_name

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from openqrm.plugin_api.plugin import Plugin
    from openqrm.plugin_api.records import Writer
    from openqrm.store.tables import Schema

_SCRIPTS = Path(__file__).parent / "migrations"
FOLDER = "migrations"
"""Where a plug-in has its revisions, beside its code."""


@dataclass(frozen=True)
class History:
    """A folder of revisions and the table that says which is reached. `tables`: those it is about, None for all."""

    whose: str
    folder: Path
    version_table: str
    tables: frozenset[str] | None = None

    @property
    def head(self) -> str:
        """The newest revision this program knows. UnavailableError when its files cannot be used."""
        try:
            return str(ScriptDirectory.from_config(self.config()).get_current_head())
        except (CommandError, OSError, SyntaxError) as error:
            raise UnavailableError(f"the revisions of {self.whose} in {self.folder} cannot be used: {error}") from error

    def current(self, connection: Connection) -> str | None:
        """The revision a database is at; None when it has none of these tables."""
        return MigrationContext.configure(connection, opts={"version_table": self.version_table}).get_current_revision()

    def upgrade(self, connection: Connection, schema: Schema, revision: str = "head") -> tuple[str | None, str | None]:
        """Bring the tables up to date; the revision before and after. UnavailableError for a newer database."""
        before = self.current(connection)
        if self.head == "None":
            raise UnavailableError(f"{self.whose} has no revisions in {self.folder}, which would make its tables")
        try:
            command.upgrade(self.config(connection=connection, schema=schema), revision)
        except CommandError as error:
            raise UnavailableError(
                f"the tables of {self.whose} are at revision {before}, which this program does not know: {error}",
                remedy=f"run the version of {self.whose} that last used this database, or a newer one",
            ) from error
        return before, self.current(connection)

    def config(self, **attributes: Any) -> Config:
        """What Alembic reads."""
        config = Config()
        config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
        config.set_main_option("version_locations", str(self.folder).replace("%", "%%"))
        config.set_main_option("path_separator", "newline")
        config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
        config.attributes.update(attributes, history=self)
        return config


CORE = History("openqrm", _SCRIPTS / "versions", "alembic_version")


def history_of(plugin: Plugin) -> History:
    """The history of a plug-in's tables."""
    version_table = f"{plugin.name.replace('-', '_')}_alembic_version"
    tables = frozenset(table_name(record) for record in plugin.entities)
    return History(f"plug-in {plugin.name}", path_in(plugin, FOLDER), version_table, tables)


class SqlPluginTables:
    """Implements `engine.ports.PluginTables`."""

    def make(self, writer: Writer, plugin: Plugin) -> None:
        """Make them, or bring those that were kept up to date. UnavailableError."""
        sql = _sql(writer)
        with translated():
            history_of(plugin).upgrade(sql.connection, sql.schema)

    def drop(self, writer: Writer, plugin: Plugin) -> None:
        """Remove them with all that is in them, and what search remembers of it."""
        sql, words = _sql(writer), _sql(writer).schema.words
        with translated():
            own = [sql.schema[record].table for record in plugin.entities]
            for table in reversed([table for table in sql.schema.metadata.sorted_tables if table in own]):
                table.drop(sql.connection, checkfirst=True)
            Table(history_of(plugin).version_table, MetaData()).drop(sql.connection, checkfirst=True)
            names = [record.entity.name for record in plugin.entities]
            sql.connection.execute(delete(words).where(words.c.entity.in_(names)))


def exists(connection: Connection, history: History) -> bool:
    """Whether a database has these tables, of whatever revision."""
    return inspect(connection).has_table(history.version_table)


def _sql(writer: Writer) -> SqlWriter:
    assert isinstance(writer, SqlWriter)  # noqa: S101  # wired together by bootstrap
    return writer
