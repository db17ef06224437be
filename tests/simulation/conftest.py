"""Databases for worlds that are built again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openqrm.testing.database import open_database
from openqrm.testing.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openqrm.engine.ports import Database
    from openqrm.store.database import SqlDatabase


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def fresh(request: pytest.FixtureRequest) -> Iterator[Callable[[], Database]]:
    """Makes empty databases of one kind."""
    if request.param == "memory":
        yield MemoryDatabase
        return
    source = request.getfixturevalue("postgres_server" if request.param == "postgresql" else "sqlite_files")
    latest: list[tuple[str, SqlDatabase]] = []

    def drop() -> None:
        for url, database in latest:
            database.close()
            if request.param == "postgresql":
                source.drop(url)
        latest.clear()

    def make() -> Database:
        drop()  # worlds come one after the other: hundreds of databases would fill the server
        url = source.fresh()
        latest.append((url, open_database(url)))
        return latest[0][1]

    yield make
    drop()
