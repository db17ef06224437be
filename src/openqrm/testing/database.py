"""Real databases for tests: SQLite files and a PostgreSQL server of the tests' own.

The server is Debian's, in a temporary directory, on a Unix socket, without fsync; it runs as another user when the
tests run as root, because PostgreSQL refuses root. Databases are copied from a template, which takes milliseconds.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg

from openqrm.domain.entities import ENTITIES
from openqrm.store.clock import utc_now
from openqrm.store.database import SqlDatabase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openqrm.domain.model import Record
    from openqrm.store.clock import Clock

TEST_KEY = bytes(range(32))
START_SECONDS = 60
_SERVER_OPTIONS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
}


_CUT_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_EMPTY = """
DO $$
DECLARE item record;
BEGIN
    SET LOCAL session_replication_role = replica;  -- references are not checked
    SET LOCAL lock_timeout = '5s';
    DROP TABLE IF EXISTS heartbeats_1;
    FOR item IN SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE format('DELETE FROM %I', item.name);
    END LOOP;
    FOR item IN SELECT sequencename AS name FROM pg_sequences WHERE schemaname = 'public' LOOP
        EXECUTE format('ALTER SEQUENCE %I RESTART', item.name);
    END LOOP;
END $$
"""


def _name(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


def postgres_binaries() -> Path | None:
    """The directory with `initdb` and `postgres`, the newest version first; None when not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def open_database(
    url: str, records: Mapping[str, type[Record]] = ENTITIES, *, clock: Clock = utc_now, create: bool = False
) -> SqlDatabase:
    """A database that does not wait for the disk; `create` makes the tables."""
    database = SqlDatabase.open(url, records, TEST_KEY, clock=clock, durable=False)
    if create:
        database.create()
    return database


class SqliteFiles:
    """Fresh SQLite databases with all tables, copied from one file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count()
        self._template = directory / "template.db"
        open_database(f"sqlite:///{self._template}", create=True).close()
        with sqlite3.connect(self._template) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def fresh(self) -> str:
        """The URL of a new database."""
        file = self._directory / f"test-{next(self._numbers)}.db"
        shutil.copyfile(self._template, file)
        return f"sqlite:///{file}"


class PostgresServer:
    """A PostgreSQL server of our own. Use as a context manager."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._numbers = itertools.count()
        self.directory = Path(tempfile.mkdtemp(prefix="oq-pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._clean: list[str] = []

    def __enter__(self) -> Self:
        try:
            self._initialise()
            self.start()
            self._make_template()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, name: str) -> str:
        """The URL of a database on this server."""
        return f"postgresql+psycopg://openqrm@/{name}?host={self.directory}"

    def empty(self) -> str:
        """The URL of a new database without tables."""
        return self._new("template0")

    def fresh(self) -> str:
        """The URL of a database with all tables and nothing in them."""
        return self._clean.pop() if self._clean else self._new("openqrm_template")

    def give_back(self, url: str) -> None:
        """Take a database from `fresh` back: emptied it serves again, which is quicker than making one."""
        try:
            with self._connection(_name(url)) as connection:
                connection.execute(_CUT_OTHERS)
                connection.execute(_EMPTY)
        except psycopg.Error:
            self.drop(url)
        else:
            self._clean.append(url)

    def drop(self, url: str) -> None:
        """Remove a database, and cut whatever is still connected to it."""
        self._run(f'DROP DATABASE IF EXISTS "{_name(url)}" WITH (FORCE)')

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = [part for name, value in _SERVER_OPTIONS.items() for part in ("-c", f"{name}={value}")]
        command = [str(self._binaries / "postgres"), "-D", str(self._data), "-k", str(self.directory), *options]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory, **self._user()
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._run("SELECT 1")
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.directory / "log").read_text()) from None
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Stop the server; open connections are cut."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait(timeout=20)
        self._process = None

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _user(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        names = {entry.pw_name: entry for entry in pwd.getpwall()}
        entry = names.get("postgres") or names["nobody"]
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def _initialise(self) -> None:
        user = self._user()
        if user:
            os.chown(self.directory, user["user"], user["group"])
        command = [str(self._binaries / "initdb"), "-D", str(self._data), "-U", "openqrm", "-A", "trust", "--no-sync"]
        command += ["--encoding=UTF8", "--locale=C.UTF-8"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=self.directory, check=False, **user
        )
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stdout}{done.stderr}")

    def _make_template(self) -> None:
        self._run("CREATE DATABASE openqrm_template TEMPLATE template0")
        open_database(self.url("openqrm_template"), create=True).close()

    def _new(self, template: str) -> str:
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def _run(self, statement: str) -> None:
        with self._connection("postgres") as connection:
            connection.execute(statement.encode())

    def _connection(self, name: str) -> psycopg.Connection[Any]:
        return psycopg.connect(f"host={self.directory} user=openqrm dbname={name}", autocommit=True)


def postgres_or_why() -> tuple[PostgresServer | None, str]:
    """A server to start, or why there can be none."""
    binaries = postgres_binaries()
    if binaries is None:
        return None, "PostgreSQL is not installed: apt-get install postgresql"
    return PostgresServer(binaries), ""
