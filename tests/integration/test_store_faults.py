"""A full disk, a server that goes away, a controller that stops inside a transaction: refused clearly, nothing lost."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from openqrm.domain.errors import UnavailableError
from openqrm.domain.event import Event, Severity
from openqrm.domain.resource import Resource
from openqrm.store import engines
from openqrm.testing import needs
from openqrm.testing.database import PostgresServer, open_database, postgres_or_why

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openqrm.store.database import SqlDatabase


def add(database: SqlDatabase, name: str) -> None:
    with database.write() as writer:
        writer.insert(Resource(name=name))


def names(database: SqlDatabase) -> list[str]:
    with database.read() as reader:
        return [record.name for record in reader.find(Resource)]


def fill(database: SqlDatabase, committed: list[str]) -> None:
    """Write until the disk is full, keeping account of what was committed."""
    for number in range(10_000):
        with database.write() as writer:
            writer.event(f"{number} {'x' * 50_000}", severity=Severity.INFO, source="test")
        committed.append(str(number))


def test_a_full_disk_under_sqlite(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/a.db", create=True)
    add(database, "before")
    with database.engine.begin() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 100}")
    committed: list[str] = []
    with pytest.raises(UnavailableError, match="full") as refused:
        fill(database, committed)
    assert refused.value.remedy is not None
    assert committed
    assert names(database) == ["before"]
    with database.engine.begin() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages * 100}")
    add(database, "after")
    assert names(database) == ["before", "after"]
    with database.read() as reader:
        assert [event.text.split()[0] for event in reader.find(Event)] == committed
    database.close()


def test_a_file_that_cannot_be_opened() -> None:
    database = open_database("sqlite:////nonexistent/a.db")
    with pytest.raises(UnavailableError, match="away"):
        names(database)


def test_a_writer_of_another_process_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "WAIT_SECONDS", 0.2)
    one = open_database(f"sqlite:///{tmp_path}/a.db", create=True)
    two = open_database(f"sqlite:///{tmp_path}/a.db")
    with one.write() as writer:
        writer.insert(Resource(name="slow"))
        with pytest.raises(UnavailableError, match="busy"):
            add(two, "quick")
    add(two, "quick")
    assert names(one) == ["slow", "quick"]
    one.close()
    two.close()


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of this test's own, to be stopped."""
    found, why = postgres_or_why()
    if found is None:
        needs.lacking(why)
    with found:
        yield found


@pytest.mark.postgres
def test_a_server_that_goes_and_comes_back(server: PostgresServer) -> None:
    database = open_database(server.fresh())
    add(database, "before")
    assert names(database) == ["before"]

    def lose() -> None:
        with database.write() as writer:
            writer.insert(Resource(name="lost"))
            server.stop()
            with pytest.raises(UnavailableError):
                writer.insert(Resource(name="lost-too"))
            server.start()

    with pytest.raises(UnavailableError):
        lose()
    add(database, "after")
    assert names(database) == ["before", "after"]
    server.stop()
    with pytest.raises(UnavailableError, match="away"):
        add(database, "nobody-there")
    database.close()


@pytest.mark.postgres
def test_a_controller_that_stops_inside_a_transaction_holds_nobody_up(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "IDLE_SECONDS", 1)
    url = postgres_server.fresh()
    paused, other = open_database(url), open_database(url)
    stopped = threading.Event()

    refused: list[UnavailableError] = []

    def stop_inside() -> None:
        try:
            with paused.write() as writer:
                writer.insert(Resource(name="paused"))
                stopped.set()
                time.sleep(3)
        except UnavailableError as error:
            refused.append(error)

    thread = threading.Thread(target=stop_inside)
    thread.start()
    stopped.wait(10)
    add(other, "other")
    thread.join()
    assert len(refused) == 1
    assert names(other) == ["other"]
    add(paused, "paused-again")
    assert names(other) == ["other", "paused-again"]
    for database in (paused, other):
        database.close()
    postgres_server.drop(url)
