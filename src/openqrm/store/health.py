"""The latest heartbeat of every resource, apart from the main data: they come by the thousand and may be lost.

SQLite keeps them in a file of their own, which does not wait for the disk, so that they never hold up a change.
PostgreSQL keeps them in an unlogged table, emptied after a crash of the server; then the next beats fill it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from openqrm.store.engines import WRITE_LOCK, checked, engine_for
from openqrm.store.faults import translated

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL

    from openqrm.settings import Settings

TABLE = "heartbeats_1"
"""A later shape gets another number; the old table's content is not missed."""
_STATS = ("uptime", "load", "memory_total", "memory_available", "swap_total", "swap_free", "cpus", "nics")
_COLUMNS = ("resource_id", "at", *_STATS)
_FRACTIONS = ("at", "uptime", "load")


class Beat(Protocol):
    """A heartbeat: uptime in seconds, 1-minute load, memory and swap in KiB, CPUs and NICs."""

    @property
    def uptime(self) -> float: ...
    @property
    def load(self) -> float: ...
    @property
    def memory_total(self) -> int: ...
    @property
    def memory_available(self) -> int: ...
    @property
    def swap_total(self) -> int: ...
    @property
    def swap_free(self) -> int: ...
    @property
    def cpus(self) -> int: ...
    @property
    def nics(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Latest:
    """The last heartbeat of a resource, in the units of `Beat`."""

    at: datetime
    uptime: float
    load: float
    memory_total: int
    memory_available: int
    swap_total: int
    swap_free: int
    cpus: int
    nics: int


class HealthStore:
    """Blocking; call it in a thread, in batches. All methods raise UnavailableError when the database is away."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._postgresql = url.get_backend_name() == "postgresql"
        self._engine = self._opened()
        self._upsert = _upsert_postgresql() if self._postgresql else _upsert_sqlite()

    @classmethod
    def open(cls, settings: Settings) -> HealthStore:
        """The installation's heartbeats: beside its SQLite file, or in its PostgreSQL database."""
        return cls.beside(settings.database)

    @classmethod
    def beside(cls, database_url: str) -> HealthStore:
        """The heartbeats that belong to a main database."""
        url = checked(database_url)
        if url.get_backend_name() == "sqlite":
            main = Path(str(url.database))
            url = url.set(database=str(main.with_name(f"{main.stem}-health.db")))
        return cls(url)

    def close(self) -> None:
        """Let the connection go."""
        self._engine.dispose()

    def put_many(self, beats: Sequence[tuple[int, datetime, Beat]]) -> None:
        """Keep the newest heartbeat of each resource; an older one than is known changes nothing."""
        newest: dict[int, tuple[float | int, ...]] = {}
        for resource_id, at, beat in beats:
            moment = at.timestamp()
            known = newest.get(resource_id)
            if known is None or known[1] <= moment:
                stats = (
                    beat.uptime, beat.load, beat.memory_total, beat.memory_available, beat.swap_total,
                    beat.swap_free, beat.cpus, beat.nics,
                )  # fmt: skip
                newest[resource_id] = (resource_id, moment, *stats)
        if not newest:
            return
        rows = sorted(newest.values())
        with translated(), self._engine.begin() as connection:
            if self._postgresql:
                connection.exec_driver_sql(self._upsert, tuple(list(column) for column in zip(*rows, strict=True)))
            else:
                connection.exec_driver_sql(self._upsert, rows)

    def record(self, beats: Mapping[int, Beat], at: datetime) -> None:
        """Keep heartbeats that came at one time."""
        self.put_many([(resource_id, at, beat) for resource_id, beat in beats.items()])

    def latest(self, ids: Collection[int]) -> dict[int, Latest]:
        """The last heartbeats of these resources; those never heard are missing."""
        if not ids:
            return {}
        numbers = ",".join(str(int(one)) for one in ids)
        query = f"SELECT {', '.join(_COLUMNS)} FROM {TABLE} WHERE resource_id IN ({numbers})"  # noqa: S608 - numbers
        with translated(), self._engine.begin() as connection:
            rows = connection.exec_driver_sql(query).all()
        return {row[0]: Latest(_time(row[1]), *row[2:]) for row in rows}

    def last_seen(self) -> dict[int, datetime]:
        """When each resource was heard last."""
        with translated(), self._engine.begin() as connection:
            rows = connection.exec_driver_sql(f"SELECT resource_id, at FROM {TABLE}").all()  # noqa: S608 - a constant
        return {resource_id: _time(at) for resource_id, at in rows}

    def forget(self, resource_id: int) -> None:
        """Drop what is known of a resource that was removed."""
        with translated(), self._engine.begin() as connection:
            connection.execute(text(f"DELETE FROM {TABLE} WHERE resource_id = :id"), {"id": resource_id})  # noqa: S608

    def _opened(self) -> Engine:
        engine = engine_for(self._url, writing=True, sync="NORMAL", serial=False)
        try:
            with engine.begin() as connection:
                self._create(connection)
        except DatabaseError as error:
            engine.dispose()
            if getattr(error.orig, "sqlite_errorname", "") not in ("SQLITE_CORRUPT", "SQLITE_NOTADB"):
                with translated():
                    raise
            for suffix in ("", "-wal", "-shm"):  # worth nothing but for a few seconds: made anew
                Path(f"{self._url.database}{suffix}").unlink(missing_ok=True)
            return self._opened()
        return engine

    def _create(self, connection: Connection) -> None:
        kind = "UNLOGGED TABLE" if self._postgresql else "TABLE"
        columns = ", ".join(f"{name} {_type(name)} NOT NULL" for name in _COLUMNS)
        if self._postgresql:  # two controllers that start at once
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")
        connection.exec_driver_sql(f"CREATE {kind} IF NOT EXISTS {TABLE} ({columns}, PRIMARY KEY (resource_id))")


def _time(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)


def _type(name: str) -> str:
    return "DOUBLE PRECISION" if name in _FRACTIONS else "BIGINT"


def _changes() -> str:
    pairs = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
    return f"ON CONFLICT (resource_id) DO UPDATE SET {pairs} WHERE excluded.at >= {TABLE}.at"


def _upsert_sqlite() -> str:
    marks = ", ".join("?" for _ in _COLUMNS)
    return f"INSERT INTO {TABLE} ({', '.join(_COLUMNS)}) VALUES ({marks}) {_changes()}"  # noqa: S608 - constants


def _upsert_postgresql() -> str:
    """One statement for any number of rows: a column is sent as an array."""
    arrays = ", ".join(f"%s::{_type(name).lower()}[]" for name in _COLUMNS)
    return f"INSERT INTO {TABLE} ({', '.join(_COLUMNS)}) SELECT * FROM unnest({arrays}) {_changes()}"  # noqa: S608
