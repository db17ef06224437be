"""An installation made for a bench, and the controller process that serves it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openqrm.admin.certificates import client_context
from openqrm.admin.setup import PASSWORD_FILE, prepare
from openqrm.domain.kernel import Kernel
from openqrm.settings import Settings

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from openqrm.store.database import SqlDatabase

START_SECONDS = 60
CONTROLLER = ("openqrm.cli.main", "controller", "run")
"""What a real installation runs."""


@dataclass(frozen=True)
class World:
    """What a bench is given: a database nobody used before, a directory of its own, and the kind of the database."""

    kind: str
    url: str
    directory: Path


@dataclass
class Site:
    """A controller that serves, as one process of its own."""

    settings: Settings
    process: subprocess.Popen[bytes]
    log: Path
    token: str = ""

    @property
    def tls(self) -> ssl.SSLContext:
        """Trusts the installation's authority and nothing else, as machines do."""
        return client_context(self.settings)

    def get(self, path: str) -> Any:
        """`GET` with the administrator's session; parsed JSON."""
        return self._call(urllib.request.Request(f"{self.settings.url}{path}"))  # our own URL

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """`POST` JSON; parsed JSON."""
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return self._call(urllib.request.Request(f"{self.settings.url}{path}", data, headers))

    def everything(self, plural: str, **conditions: str) -> list[dict[str, Any]]:
        """All records of an entity, page by page."""
        items: list[dict[str, Any]] = []
        query = "&".join(f"{name}={value}" for name, value in conditions.items())
        cursor = ""
        while True:
            page = self.get(f"/v1/{plural}?limit=500&{query}{'&cursor=' + cursor if cursor else ''}")
            items += page["items"]
            if not page["next"]:
                return items
            cursor = page["next"]

    def rss_mb(self) -> float:
        """Resident memory of the controller process, MiB."""
        return float(self._status("VmRSS")) / 1024

    def cpu_seconds(self) -> float:
        """What the process has used of all CPUs, user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _status(self, name: str) -> str:
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name}:"))

    def _call(self, request: urllib.request.Request) -> Any:
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        with urllib.request.urlopen(request, context=self.tls, timeout=60) as answer:  # our own URL
            return json.load(answer)


def settle(database: SqlDatabase) -> None:
    """What autovacuum does within a minute of such a change, done now: PostgreSQL plans by its statistics."""
    if database.dialect == "postgresql":
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def settings_for(world: World, **more: Any) -> Settings:
    """An installation's settings on loopback, also written as its configuration file."""
    values: dict[str, Any] = {
        "state_dir": str(world.directory / "state"),
        "database_url": world.url,
        "address": "127.0.0.1",
        "port": free_port(),
        "boot_port": free_port(),
        "log_level": "warning",
        **more,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    (world.directory / "openqrm.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Settings(**values)


@contextlib.contextmanager
def running(
    world: World,
    fill: Callable[[SqlDatabase], None],
    command: tuple[str, ...] = CONTROLLER,
    **settings: Any,
) -> Iterator[Site]:
    """Set an installation up, `fill` its database, start its controller, log in; ended with the block."""
    known = settings_for(world, **settings)
    installation = prepare(known)
    with installation.database.write() as writer:
        writer.insert(Kernel(name="default", version="6.1.0-bench", default=True, ready=True))
    fill(installation.database)
    settle(installation.database)
    installation.database.close()
    log = world.directory / "controller.log"
    argv = [sys.executable, "-m", *command, "--config", str(world.directory / "openqrm.toml")]
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=_root())
    site = Site(known, process, log)
    try:
        _wait(site)
        password = (known.state_dir / PASSWORD_FILE).read_text(encoding="utf-8").strip()
        site.token = site.post("/v1/login", {"name": "admin", "password": password})["token"]
        yield site
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _root() -> Path:
    return Path(__file__).resolve().parent.parent


def _wait(site: Site) -> None:
    """Until it answers. RuntimeError with its output when it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError):
            site.get("/v1/health")
            return
        if site.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the controller does not serve:\n{site.log.read_text(errors='replace')}")
        time.sleep(0.1)
