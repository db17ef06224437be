"""Entities of plug-ins: their names fit in, and their revisions make what is declared."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from openqrm.engine.plugins.entities import all_entities, entity_fault
from openqrm.store import migrations
from openqrm.store.database import SqlDatabase
from openqrm.store.histories import FOLDER, history_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Table

    from openqrm.engine.plugins.catalogue import Catalogue
    from openqrm.plugin_api.plugin import Plugin

LONGEST = 63
"""Characters of a name in PostgreSQL."""


def names(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """They begin with the plug-in's name and are nobody else's."""
    fault = entity_fault(plugin, all_entities(one for one in catalogue.plugins if one.name != plugin.name))
    if fault:
        yield fault


def revisions(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    """The tables that its revisions make are those that its records declare."""
    if not plugin.entities or list(names(plugin, catalogue)):
        return
    with tempfile.TemporaryDirectory() as directory:
        records = all_entities((plugin,))
        database = SqlDatabase.open(f"sqlite:///{directory}/a.db", records, bytes(32), durable=False)
        try:
            yield from _differences(plugin, database)
        finally:
            database.close()


def _differences(plugin: Plugin, database: SqlDatabase) -> Iterator[str]:
    tables = [database.schema[record].table for record in plugin.entities]
    yield from (f"the name {name} is longer than {LONGEST} characters" for name in _too_long(tables))
    history = history_of(plugin)
    try:
        migrations.upgrade(database)
        migrations.upgrade(database, history=history)
    except Exception as error:  # noqa: BLE001 - somebody's revision may raise anything, and that is the finding
        yield f"its revisions in {FOLDER}/ fail: {error}"
        return
    with database.engine.connect() as connection:
        options = {"include_object": lambda _, name, kind, *__: kind != "table" or name in (history.tables or ())}
        context = MigrationContext.configure(connection, opts=options)
        if compare_metadata(context, database.schema.metadata):
            yield f"its records declare what no revision makes: openqrm database revision --plugin {plugin.name} -m WHY"


def _too_long(tables: list[Table]) -> Iterator[str]:
    for table in tables:
        found = [table.name, *(index.name for index in table.indexes), *(one.name for one in table.constraints)]
        yield from (str(name) for name in found if name and len(str(name)) > LONGEST)
