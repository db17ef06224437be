"""Databases for all tests: `database` is each kind in turn, `sql_database` the two real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from openqrm.testing import needs
from openqrm.testing.database import PostgresServer, SqliteFiles, open_database, postgres_or_why
from openqrm.testing.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openqrm.store.database import SqlDatabase


# How long an example takes says nothing on a machine that does other work.
settings.register_profile("openqrm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("openqrm")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for the session. Absent, it is a failure in CI and a skip with a reason elsewhere."""
    server, why = postgres_or_why()
    if server is None:
        needs.lacking(why)
    with server:
        yield server


@pytest.fixture(scope="session")
def sqlite_files(tmp_path_factory: pytest.TempPathFactory) -> SqliteFiles:
    """A source of fresh SQLite databases."""
    return SqliteFiles(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def sql_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a fresh database with all tables, on each real database in turn."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_files").fresh()
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.fresh()
    yield url
    server.give_back(url)


@pytest.fixture
def sql_database(sql_url: str) -> Iterator[SqlDatabase]:
    """A fresh database with all tables, on each real database in turn."""
    opened = open_database(sql_url)
    yield opened
    opened.close()


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest) -> Iterator[SqlDatabase | MemoryDatabase]:
    """A fresh database of each kind in turn."""
    if request.param == "memory":
        yield MemoryDatabase()
        return
    kind: str = request.param
    server: PostgresServer | None = request.getfixturevalue("postgres_server") if kind == "postgresql" else None
    url = server.fresh() if server else request.getfixturevalue("sqlite_files").fresh()
    opened = open_database(url)
    yield opened
    opened.close()
    if server:
        server.give_back(url)
