"""A real OpenSSH server on loopback, or in a network namespace, for tests of what runs over SSH."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from openqrm.remote.endpoint import Endpoint
from openqrm.remote.keys import InstallationKey, installation_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START_SECONDS = 10.0
# A shell level keeps bash from reading the .bashrc of whoever runs the tests, which it does for sshd.
CONFIGURATION = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
MaxStartups 100
MaxSessions 10
SetEnv SHLVL=2
"""


@dataclass
class SshServer:
    """sshd with a host key and an authorized installation key of its own, for the user who runs the tests."""

    directory: Path
    port: int
    key: InstallationKey
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def host_key(self) -> str:
        """The host key it shows now, as it is pinned."""
        return " ".join((self.directory / "host_key.pub").read_text(encoding="ascii").split()[:2])

    def endpoint(self, *, pinned: bool = True, first_use: bool = False) -> Endpoint:
        """How it is reached."""
        keys = (self.host_key(),) if pinned else ()
        user = os.environ.get("USER") or "root"
        return Endpoint("127.0.0.1", self.port, user=user, host_keys=keys, first_use=first_use)

    def new_host_key(self) -> None:
        """What a machine that was installed anew, or an impostor, has."""
        for name in ("host_key", "host_key.pub"):
            (self.directory / name).unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(self.directory / "host_key")]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    def start(self) -> None:
        """Start it and wait until it listens. RuntimeError when it does not."""
        sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", "")) or "sshd"
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # noqa: PTH103 - OpenSSH's own, may exist already
        log = (self.directory / "sshd.log").open("ab")
        self.process = subprocess.Popen(
            [sshd, "-D", "-e", "-f", str(self.directory / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError(f"sshd did not start: {(self.directory / 'sshd.log').read_text(encoding='utf-8')}")

    def session_processes(self) -> list[int]:
        """The sshd processes that serve connections."""
        assert self.process is not None  # noqa: S101 - it was started
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, check=False)
        return [int(word) for word in listed.stdout.split()]

    def cut_sessions(self) -> None:
        """Break every connection off, as a link that is gone would; commands on the host live on."""
        for pid in self.session_processes():
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End it, and the connections with it."""
        if self.process is not None:
            self.cut_sessions()
            self.process.kill()
            self.process.wait()
            self.process = None


def free_port() -> int:
    """A TCP port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def ssh_server(directory: Path) -> Iterator[SshServer]:
    """A running server with its files in `directory`; MaxSessions is OpenSSH's default, 10."""
    key = installation_key(directory / "controller")
    server = SshServer(directory, free_port(), key)
    (directory / "authorized_keys").write_text(key.public + "\n", encoding="ascii")
    text = CONFIGURATION.format(directory=directory, port=server.port)
    (directory / "sshd_config").write_text(text, encoding="utf-8")
    server.new_host_key()
    server.start()
    try:
        yield server
    finally:
        server.stop()
