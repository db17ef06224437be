"""The history of the schema ends where the declarations are, on both databases."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from openqrm.domain.errors import ConflictError, UnavailableError
from openqrm.domain.resource import Resource
from openqrm.domain.storage import Storage
from openqrm.store import migrations
from openqrm.testing.database import open_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from openqrm.store.database import SqlDatabase
    from openqrm.testing.database import PostgresServer


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], SqlDatabase]]:
    """Makes databases without tables, of each kind in turn."""
    opened: list[SqlDatabase] = []
    server: PostgresServer | None = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")

    def make() -> SqlDatabase:
        url = server.empty() if server else f"sqlite:///{tmp_path}/{len(opened)}.db"
        opened.append(open_database(url))
        return opened[-1]

    yield make
    for database in opened:
        database.close()
        if server:
            server.drop(str(database.url))


@pytest.fixture
def empty(fresh: Callable[[], SqlDatabase]) -> SqlDatabase:
    """A database without tables, of each kind in turn."""
    return fresh()


def described(database: SqlDatabase) -> dict[str, Any]:
    """Everything about the tables that matters, in an order that does not depend on how they came about."""
    with database.engine.connect() as connection:
        looking = inspect(connection)
        return {
            table: {
                "columns": {
                    column["name"]: (
                        str(column["type"]),
                        getattr(column["type"], "collation", None),
                        column["nullable"],
                    )
                    for column in looking.get_columns(table)
                },
                "key": looking.get_pk_constraint(table)["constrained_columns"],
                "unique": {(one["name"], *one["column_names"]) for one in looking.get_unique_constraints(table)},
                "references": {
                    (one["name"], *one["constrained_columns"], one["referred_table"], one["options"].get("ondelete"))
                    for one in looking.get_foreign_keys(table)
                },
                "indexes": {(one["name"], *one["column_names"]) for one in looking.get_indexes(table)},
            }
            for table in looking.get_table_names()
            if table != "alembic_version"
        }


def test_migrated_equals_declared(fresh: Callable[[], SqlDatabase]) -> None:
    empty, created = fresh(), fresh()
    created.create()
    assert migrations.upgrade(empty) == (None, migrations.head())
    migrated, declared = described(empty), described(created)
    assert migrated.keys() == declared.keys()
    for table, description in declared.items():
        assert migrated[table] == description, f"{table}: run openqrm database revision -m WHY"
    with empty.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), empty.schema.metadata) == []


def test_upgrading_twice_changes_nothing_and_the_tables_work(empty: SqlDatabase) -> None:
    migrations.upgrade(empty)
    with empty.write() as writer:
        resource = writer.insert(Resource(id=0, name="server"))
        writer.insert(Storage(name="s", type="t", resource_id=0))
    assert migrations.upgrade(empty) == (migrations.head(), migrations.head())
    assert migrations.current(empty) == migrations.head()
    with empty.write() as writer, pytest.raises(ConflictError):
        writer.delete(Resource, resource.id)


def test_a_newer_database_is_refused(empty: SqlDatabase) -> None:
    migrations.upgrade(empty)
    with empty.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(UnavailableError, match="9999"):
        migrations.upgrade(empty)


def test_a_failing_upgrade_leaves_nothing_behind(empty: SqlDatabase) -> None:
    with empty.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE users (mine INTEGER)")
    with pytest.raises(Exception, match="users"):
        migrations.upgrade(empty)
    with empty.engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["users"]
    assert migrations.current(empty) is None


def test_references_are_checked_after_a_table_was_rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = open_database(f"sqlite:///{tmp_path}/a.db")
    migrations.upgrade(database)
    with sqlite3.connect(tmp_path / "a.db") as raw:  # without foreign keys: what a faulty revision could do
        raw.execute("INSERT INTO tokens (created_at, updated_at, name, user_id, token_hash) VALUES ('','','a',99,'x')")
    raw.close()
    with pytest.raises(UnavailableError, match="references"):
        migrations.upgrade(database)
    database.close()
