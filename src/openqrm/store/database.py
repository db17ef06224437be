"""The installation's database: SQLite beside the controller, or PostgreSQL. Blocking; called in bounded threads.

Writes are serialized on both: SQLite by `BEGIN IMMEDIATE`, PostgreSQL by one advisory lock held to the end of the
transaction. So a transaction that reads and then decides is right without retries or deadlocks, and events become
visible in the order of their ids, which a stream that resumes by id needs. Transactions are short (about a
millisecond), and a controller that stalls inside one loses its session after `engines.IDLE_SECONDS`.

SQLite syncs every commit (`synchronous=FULL`): in WAL mode NORMAL would be consistent after a power cut, but could
forget the last commits, and the journal's promise is that a step is on disk before it acts. Data that may be lost,
heartbeats, are in a file of their own.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.exc import SQLAlchemyError

from openqrm.domain.entities import ENTITIES
from openqrm.domain.errors import ConflictError
from openqrm.store.clock import Clock, utc_now
from openqrm.store.commits import Commit, Listeners
from openqrm.store.engines import WAIT_SECONDS, Sync, checked, engine_for
from openqrm.store.faults import DuplicateFault, ReferenceFault, translated
from openqrm.store.records import SqlReader, SqlWriter
from openqrm.store.secrets import Keyring
from openqrm.store.tables import Schema
from openqrm.store.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy.engine import URL

    from openqrm.domain.model import Record


class SqlDatabase:
    """Implements `engine.ports.Database`. `schema` has the tables; `engine` is for migrations."""

    def __init__(self, url: URL, schema: Schema, keyring: Keyring, clock: Clock, *, durable: bool) -> None:
        self.url = url
        self.schema = schema
        self.dialect = url.get_backend_name()
        self._keyring = keyring
        self._clock = clock
        sync: Sync = "FULL" if durable else "OFF"
        self.engine = engine_for(url, writing=True, sync=sync)
        self._readers = engine_for(url, writing=False, sync=sync)
        self._listeners = Listeners()
        self._turns = Turns()

    @classmethod
    def open(
        cls,
        url: str,
        records: Mapping[str, type[Record]] = ENTITIES,
        key: bytes | Keyring = b"",
        *,
        clock: Clock = utc_now,
        durable: bool = True,
    ) -> SqlDatabase:
        """Prepare to connect; nothing is contacted yet. `durable=False` is for tests: it does not wait for the disk."""
        keyring = key if isinstance(key, Keyring) else Keyring.of(key)
        return cls(checked(url), Schema(records), keyring, clock, durable=durable)

    def close(self) -> None:
        """Let all connections go."""
        self.engine.dispose()
        self._readers.dispose()

    def create(self) -> None:
        """Make all tables at once: for tests and benches. An installation is made by `migrations.upgrade`."""
        with translated(), self.engine.begin() as connection:
            self.schema.metadata.create_all(connection)

    @contextmanager
    def read(self) -> Iterator[SqlReader]:
        """A consistent read. UnavailableError when the database is away."""
        with self._transaction(self._readers) as connection:
            yield SqlReader(connection, self.schema, self._keyring, self._clock())

    @contextmanager
    def write(self) -> Iterator[SqlWriter]:
        """A transaction: committed at the end, rolled back on an exception. UnavailableError."""
        with self._turns.turn(WAIT_SECONDS), self._transaction(self.engine) as connection:
            writer = SqlWriter(connection, self.schema, self._keyring, self._clock())
            yield writer
            commit = writer.finish()
            connection.commit()
        self._listeners.announce(commit)

    def on_commit(self, callback: Callable[[Commit], None]) -> Callable[[], None]:
        """Call back after every commit that changed something, in the writing thread; be quick and do not write there.

        Returns how to stop it. Commits of other controllers are not seen here.
        """
        return self._listeners.add(callback)

    def reseal(self, keyring: Keyring) -> int:
        """Seal all secrets with the current key of `keyring`, which must have the old keys too; returns how many."""
        table = self.schema.secrets
        with self.write() as writer:
            rows = writer.connection.execute(select(table.c.key, table.c.key_id, table.c.sealed)).all()
            fresh = []
            for row in rows:
                key_id, sealed = keyring.seal(row.key, keyring.unseal(row.key, row.key_id, row.sealed))
                fresh.append({"key": row.key, "key_id": key_id, "sealed": sealed, "updated_at": writer.now})
            writer.connection.execute(table.delete())
            if fresh:
                writer.connection.execute(insert(table), fresh)
        self._keyring = keyring
        return len(rows)

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        with translated():
            connection = engine.connect()
        try:
            with translated():
                connection.begin()
                yield connection
        except DuplicateFault as error:
            raise ConflictError("another record has the same unique values") from error
        except ReferenceFault as error:
            raise ConflictError("a record is missing or still in use") from error
        finally:
            with suppress(SQLAlchemyError):  # a connection that broke was rolled back by the server
                connection.rollback()
            connection.close()
