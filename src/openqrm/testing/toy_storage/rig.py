"""A running toy storage on this very machine: the storage host is resource 0."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import UnreachableError
from openqrm.plugin_api.drivers import Client
from openqrm.remote.endpoint import Endpoint
from openqrm.remote.hosts import RemoteHosts
from openqrm.remote.keys import installation_key
from openqrm.testing.ssh_server import free_port
from openqrm.testing.storage_subject import Subject
from openqrm.testing.toy_storage.access import ToyAccess
from openqrm.testing.toy_storage.plugin import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openqrm.engine.ports import Finished, GateToken, Ready

CLIENTS = tuple(
    Client(resource_id=10 + number, address=f"192.0.2.{number}", mac=f"52:54:00:00:00:0{number}", name=f"c{number}")
    for number in (1, 2)
)
START_SECONDS = 10.0
DEAD = 9


class ToyHosts(RemoteHosts):
    """This machine behind a link that can be cut: nobody hears then how its commands end."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._cut = asyncio.Event()
        self._unheard: list[asyncio.Future[Finished]] = []

    async def run(self, host: int, command: Ready, *, gate: GateToken | None, seconds: float) -> Finished:
        """UnreachableError when the link is cut, also meanwhile; what was begun goes on."""
        if self._cut.is_set():
            raise UnreachableError(f"resource {host} is off the network")
        asked = asyncio.ensure_future(super().run(host, command, gate=gate, seconds=seconds))
        cut = asyncio.ensure_future(self._cut.wait())
        try:
            await asyncio.wait({asked, cut}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            asked.cancel()
            raise
        finally:
            cut.cancel()
        if asked.done():
            return await asked
        self._unheard.append(asked)
        raise UnreachableError(f"resource {host} went off the network")

    def set_link(self, up: bool) -> None:  # as `Subject.set_host_link` has it
        """Cut it, or mend it."""
        (self._cut.clear if up else self._cut.set)()

    async def close(self) -> None:
        """When all has ended that was begun."""
        await asyncio.gather(*self._unheard, return_exceptions=True)
        await super().close()


@dataclass
class ToyRig:
    """Its server, and where all is. `program` is the server's source, which a test may have changed."""

    directory: Path
    pool: Path
    small: Path | None = None
    program: str = str(Path(__file__).with_name("server.py"))
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def grants(self) -> Path:
        """Where the server has its configuration."""
        return self.directory / "grants"

    def start(self) -> None:
        """Start the server and wait until it listens. RuntimeError."""
        self.grants.mkdir(exist_ok=True)
        command = [sys.executable, self.program, str(self.port), str(self.grants)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError("the toy server did not start")

    def stop(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    async def restart(self) -> None:
        """The server anew, with the grants there are."""
        await asyncio.to_thread(self.stop)
        await asyncio.to_thread(self.start)

    async def crash(self) -> None:
        """As good as a pulled plug: whatever works in the directory is killed, then the server begins anew. What was
        written stays, for the kernel does."""
        await asyncio.to_thread(self._kill_all)
        await self.restart()

    def _kill_all(self) -> None:
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if os.fsencode(self.directory) in file.read_bytes() and int(file.parent.name) != os.getpid():
                    os.kill(int(file.parent.name), signal.SIGKILL)

    async def grant_by_hand(self, location: str, client: Client) -> None:
        """As somebody at the host's shell would."""
        grant = {"volume": "", "path": location, "client": client.address, "generation": 0, "secret": "mine"}
        file = self.grants / f"hand-{client.name}-{Path(location).name}.json"
        await asyncio.to_thread(file.write_text, json.dumps(grant | {"writes": True}))
        await asyncio.to_thread(self.control, "reload")

    def control(self, word: str) -> Any:
        """Tell the server something."""
        with socket.create_connection(("127.0.0.1", self.port)) as link:
            link.sendall(json.dumps({"control": word}).encode() + b"\n")
            return json.loads(link.makefile().readline())

    def hosts(self) -> ToyHosts:
        """Resource 0 is this machine; every other one does not answer."""
        nobody = Endpoint("127.0.0.1", free_port(), host_keys=("ssh-ed25519 AAAA",))
        return ToyHosts(
            lookup=lambda resource: nobody,  # noqa: ARG005  # whichever it is
            learned=lambda resource, shown: None,  # noqa: ARG005
            key_file=installation_key(self.directory / "controller").private_file,
            local_gate=self.directory / "gate",
        )

    def subject(self, hosts: ToyHosts) -> Subject:
        """For the conformance suite."""
        export = {"port": self.port, "grants": str(self.grants)}
        small = {"directory": str(self.small), **export} if self.small is not None else None
        return Subject.join(
            PLUGIN,
            "toy",
            PLUGIN,
            "toy",
            hosts=hosts,
            host=0,
            address="127.0.0.1",
            dead_host=DEAD,
            clients=CLIENTS,
            access=ToyAccess(),
            restart=self.restart,
            set_host_link=hosts.set_link,
            crash=self.crash,
            grant_by_hand=self.grant_by_hand,
            settings={"directory": str(self.pool), **export},
            small_settings=small,
            host_kind="this machine",
        )


@contextmanager
def toy_rig(directory: Path) -> Iterator[ToyRig]:
    """A pool on a btrfs of its own, a small one in memory, a server. Needs root; all is gone afterwards."""
    pool, small, image = directory / "pool", directory / "small", directory / "pool.img"
    rig = ToyRig(directory, pool, small)
    for each in (pool, small):
        each.mkdir()
    with image.open("wb") as file:
        file.truncate(2 << 30)
    mounted: list[Path] = []
    try:
        _do("mkfs.btrfs", "-q", str(image))
        _do("mount", "-o", "loop", str(image), str(pool))
        mounted.append(pool)
        _do("mount", "-t", "tmpfs", "-o", "size=160m", "toy", str(small))
        mounted.append(small)
        rig.start()
        yield rig
    finally:
        rig.stop()
        for each in mounted:
            _do("umount", "--lazy", str(each))


def _do(*argv: str) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True)
