"""Databases for all tests: `database` is each kind in turn, `sql_database` the two real ones."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.testing import needs
from openqrm.testing.database import PostgresServer, SqliteFiles, open_database, postgres_or_why
from openqrm.testing.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from openqrm.store.database import SqlDatabase


MISSING = re.compile(r"not installed|needs? root|needs:|namespaces need")
"""Reasons that are about this machine: on a contributor's laptop such a test is skipped, in CI it fails."""


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """What is missing in CI is a mistake of its set-up, never a reason to pass."""
    del item, call
    report = (yield).get_result()
    if report.skipped and os.environ.get("CI") and MISSING.search(str(report.longrepr)):
        report.outcome = "failed"


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
