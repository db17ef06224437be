"""SQLAlchemy engines for SQLite and PostgreSQL, set as the store needs them."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from openqrm.domain.errors import InvalidError
from openqrm.store import measure

READERS = 8
"""Connections that read at the same time."""
WAIT_SECONDS = 30
"""How long a call waits for a connection or a lock before it is refused."""
IDLE_SECONDS = 10
"""PostgreSQL ends a transaction whose controller says nothing for so long: it may be stopped or gone."""
WRITE_LOCK = 0x6F71726D
"""The advisory lock of writers, "oqrm"; private to the database it is taken in."""

Sync = Literal["FULL", "NORMAL", "OFF"]
"""Whether a commit waits for the disk: always; never, but consistent; never. PostgreSQL takes the last two alike."""


def checked(text: str) -> URL:
    """A database URL that we can use. InvalidError."""
    try:
        url = make_url(text)
    except SQLAlchemyError as error:
        raise InvalidError(f"not a database URL: {error}", field="database_url") from error
    kind = url.get_backend_name()
    if kind == "sqlite" and url.database not in (None, "", ":memory:"):
        return url
    if kind == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    raise InvalidError(
        "the database is a SQLite file or PostgreSQL",
        field="database_url",
        remedy="sqlite:////var/lib/openqrm/openqrm.db or postgresql+psycopg://user@host/name",
    )


def engine_for(url: URL, *, writing: bool, sync: Sync, serial: bool = True) -> Engine:
    """One writing connection, or `READERS` reading ones. `serial` writers take turns with those of other processes."""
    pool: dict[str, Any] = {
        "poolclass": QueuePool,
        "pool_size": 1 if writing else READERS,
        "max_overflow": 0,
        "pool_timeout": WAIT_SECONDS,
    }
    if url.get_backend_name() == "sqlite":
        engine = _sqlite(url, pool, writing=writing, sync=sync)
    else:
        engine = _postgresql(url, pool, writing=writing, sync=sync, serial=serial)
    measure.watch(engine)
    return engine


def _sqlite(url: URL, pool: dict[str, Any], *, writing: bool, sync: Sync) -> Engine:
    engine = create_engine(url, connect_args={"timeout": WAIT_SECONDS, "check_same_thread": False}, **pool)
    pragmas = ["journal_mode=WAL", f"synchronous={sync}", "foreign_keys=ON"]
    pragmas += ["cache_size=-32000", "temp_store=MEMORY", f"query_only={'OFF' if writing else 'ON'}"]

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        del record
        connection.isolation_level = None  # transactions are begun by us, below
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


def _postgresql(url: URL, pool: dict[str, Any], *, writing: bool, sync: Sync, serial: bool) -> Engine:
    settings = {
        "timezone": "UTC",
        "jit": "off",  # costs more than our short queries take
        "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
        "lock_timeout": f"{WAIT_SECONDS}s",
        "synchronous_commit": "on" if sync == "FULL" else "off",
    }
    connect = {
        "connect_timeout": 5,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
    }
    if not writing:
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        return create_engine(url, connect_args=connect, pool_pre_ping=True, execution_options=options, **pool)
    engine = create_engine(url, connect_args=connect, pool_pre_ping=True, **pool)
    if serial:

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")

    return engine
