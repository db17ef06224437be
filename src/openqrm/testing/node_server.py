"""The node API served over TLS on loopback, and a machine's end of it: for tests and benches."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from openqrm.api.node.app import create_node_app
from openqrm.domain.event import Event
from openqrm.domain.resource import MachineOrder, Resource
from openqrm.netboot.programs import CORE, Programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from openqrm.api.node.context import BootServiceFile, NodeContext
    from openqrm.plugin_api.hooks import BootChange
    from openqrm.store.database import SqlDatabase
    from openqrm.store.health import HealthStore

MAC = "52:54:00:00:00:01"


class NoHooks:
    """No plug-in changes a boot."""

    def assign(self, resource: Any, appliance: Any) -> Sequence[BootChange]:
        """Nothing."""
        del resource, appliance
        return ()


@dataclass(frozen=True)
class OneFile:
    """One file, one program, no services."""

    programs: Programs

    def read(self, reader: Any, name: str) -> bytes | None:
        """The agent."""
        del reader
        return b"#!/bin/sh\n" if name == "agent" else None

    def program(self, reader: Any, name: str) -> Path | None:
        """One for `rsync`."""
        del reader
        return self.programs.archive(CORE[0]) if name == "rsync" else None

    def services(self, reader: Any) -> Sequence[BootServiceFile]:
        """None."""
        del reader
        return []


@dataclass
class ServedNodeApi:
    """The node API on a port of loopback."""

    database: SqlDatabase
    health: HealthStore
    certificate: Path
    port: int = 0
    enrolled: list[int] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"https://127.0.0.1:{self.port}"

    def curl(self, *arguments: str, token: str = "") -> tuple[int, str]:
        """Status and body."""
        command = ["curl", "-sS", "-m", "30", "--cacert", str(self.certificate), "-w", "\n%{http_code}"]
        if token:
            command += ["-H", f"Authorization: Bearer {token}"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body

    def post(self, boot: str, mac: str = MAC, **fields: Any) -> tuple[int, str]:
        """Ask for a registration: status and body."""
        report = {"mac": mac, "boot_id": boot, "stage": "initramfs", "nics": [{"name": "eth0", "mac": mac}], **fields}
        return self.curl("-d", json.dumps(report), f"{self.url}/node/v1/register")

    def register(self, boot: str = "00000000-a", mac: str = MAC, **fields: Any) -> dict[str, str]:
        """Register and return the answer; AssertionError when it is refused."""
        status, body = self.post(boot, mac, **fields)
        if status != 200:
            raise AssertionError(body)
        return sourced(body)

    def order(self, resource_id: int, verb: str) -> int:
        """Order something of the machine's present boot."""
        with self.database.write() as writer:
            boot = writer.get(Resource, resource_id).boot_id or ""
            return writer.insert(MachineOrder(resource_id=resource_id, verb=verb, boot_id=boot)).id

    def order_state(self, order_id: int) -> str:
        """What became of an order."""
        with self.database.read() as reader:
            return reader.get(MachineOrder, order_id).state

    def resource(self, resource_id: int) -> Resource:
        """The machine as stored."""
        with self.database.read() as reader:
            return reader.get(Resource, resource_id)

    def events(self) -> list[str]:
        """The texts of all events."""
        with self.database.read() as reader:
            return [event.text for event in reader.find(Event)]


def sourced(text: str) -> dict[str, str]:
    """Assignments as a POSIX shell reads them."""
    names = [line.partition("=")[0] for line in text.splitlines()]
    script = text + "".join(f'\nprintf "%s\\0" "${name}"' for name in names)
    values = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.split("\0")
    return dict(zip(names, values, strict=False))


def eventually(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Wait until a condition holds; AssertionError after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not happen in time")
        time.sleep(0.02)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run(
        ["openssl", "req", "-x509", *curve, "-nodes", "-days", "2", *names, *files], capture_output=True, check=True
    )
    return folder / "cert.pem", folder / "key.pem"


@contextmanager
def serving(one: ServedNodeApi, context: NodeContext, key: Path) -> Iterator[ServedNodeApi]:
    """Serve as a controller does, in a thread with an event loop of its own."""
    node = create_node_app(context)
    app = Starlette(routes=[Mount("/node/v1", node)], lifespan=node.router.lifespan_context)
    listening = socket.create_server(("127.0.0.1", 0))
    one.port = listening.getsockname()[1]
    tls = {"ssl_certfile": str(one.certificate), "ssl_keyfile": str(key)}
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, **tls))  # type: ignore[arg-type]  # two strings
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    thread.start()
    eventually(lambda: server.started)
    try:
        yield one
    finally:
        server.should_exit = True
        thread.join(timeout=15)


@dataclass
class MachineStream:
    """A machine's end of the stream, in the agent's own form: HTTP/1.1 chunks over TLS."""

    socket: ssl.SSLSocket
    buffer: bytes = b""

    @classmethod
    def open(cls, served: ServedNodeApi, token: str) -> MachineStream:
        """Connect and send the head of the request."""
        context = ssl.create_default_context(cafile=str(served.certificate))
        plain = socket.create_connection(("127.0.0.1", served.port))
        stream = cls(context.wrap_socket(plain, server_hostname="127.0.0.1"))
        head = f"POST /node/v1/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        stream.socket.sendall(f"{head}Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        return stream

    def say(self, line: str) -> None:
        """Send a line as one chunk."""
        data = line.encode() + b"\n"
        self.socket.sendall(b"%x\r\n%s\r\n" % (len(data), data))

    def wait_for(self, words: bytes, seconds: float = 10) -> None:
        """Until something that holds these words was received; EOFError when the stream ends before."""
        self.socket.settimeout(seconds)
        while words not in self.buffer:
            received = self.socket.recv(4096)
            if not received:
                raise EOFError(self.buffer)
            self.buffer += received

    def close(self) -> None:
        """Let go, as a machine that dies does not."""
        self.socket.close()
