"""Both journals under one suite: the dictionary, SQLite and PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openqrm.engine.journal import RecordJournal
from openqrm.store.journal import SqlJournal
from openqrm.testing.database import PostgresServer, SqliteFiles, open_database
from openqrm.testing.journal_suite import JournalSuite, JournalUnderTest, TestClock
from openqrm.testing.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def journal(request: pytest.FixtureRequest) -> Iterator[JournalUnderTest]:
    """A journal on a fresh database of each kind in turn."""
    clock = TestClock()
    if request.param == "memory":
        memory = MemoryDatabase(clock=clock)
        yield JournalUnderTest(RecordJournal(memory), memory, clock)
        return
    server: PostgresServer | None = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        url = server.fresh()
    else:
        files: SqliteFiles = request.getfixturevalue("sqlite_files")
        url = files.fresh()
    database = open_database(url, clock=clock)
    yield JournalUnderTest(SqlJournal(database), database, clock)
    database.close()
    if server is not None:
        server.drop(url)


class TestJournal(JournalSuite):
    """On memory, SQLite and PostgreSQL, by the fixture above."""
