"""The controller inside the lab's network, and the forward of 127.0.0.1 to its Unix socket."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import network
from .errors import LabError
from .process import ProcessRecord, run, spawn, stop, tail, wait_for_port

if TYPE_CHECKING:
    from pathlib import Path

    from .state import LabSpec

START_SECONDS = 60.0
STOP_SECONDS = 15.0
"""How long a controller may take to end its work and its children."""
DEFAULT_COMMAND = (sys.executable, "-m", "openqrm.cli.main", "controller", "run", "--config", "{config}")


@dataclass(frozen=True)
class Controller:
    """The controller of the lab whose state is in `directory`."""

    directory: Path
    spec: LabSpec

    @property
    def home(self) -> Path:
        """Its state directory."""
        return self.directory / "controller"

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        return self.home / "api.sock"

    @property
    def configuration(self) -> Path:
        """Its settings file."""
        return self.home / "openqrm.toml"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.home / "controller.log"

    @property
    def installation_key(self) -> Path:
        """The installation's private SSH key; the public one beside it ends in .pub."""
        return self.home / "keys" / "installation"

    def prepare(self) -> str:
        """Make directory, key pair and settings; return the public key. Raises LabError."""
        self.installation_key.parent.mkdir(parents=True, exist_ok=True)
        for directory in (self.home, self.installation_key.parent):
            directory.chmod(0o700)
        if not self.installation_key.exists():
            run(
                [
                    "ssh-keygen",
                    "-q",
                    "-t",
                    "ed25519",
                    "-N",
                    "",
                    "-C",
                    f"openqrm {self.spec.name}",
                    "-f",
                    str(self.installation_key),
                ]
            )
        if not self.configuration.exists():
            settings = {
                "state_dir": str(self.home),
                "address": network.CONTROLLER_ADDRESS,
                "socket": str(self.socket),
                "names": ["localhost", "127.0.0.1"],
                "database_url": self.spec.database_url,
            }
            text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
            self.configuration.write_text(text, encoding="utf-8")
        return self.installation_key.with_name("installation.pub").read_text(encoding="ascii")

    def start(self) -> ProcessRecord:
        """Start it and wait for its Unix socket. Raises LabError with its log's end when it does not come."""
        self.socket.unlink(missing_ok=True)
        words = {"{config}": str(self.configuration), "{dir}": str(self.home), "{socket}": str(self.socket)}
        command = []
        for word in self.spec.controller_command or DEFAULT_COMMAND:
            for name, value in words.items():
                word = word.replace(name, value)  # noqa: PLW2901 - each placeholder in turn
            command.append(word)
        record = spawn(
            network.enter(network.lab_namespace(self.spec.name), *command),
            tag=self.directory,
            log=self.log,
            env=_environment(),
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if not record.alive() or time.monotonic() > deadline:
                stop(record, STOP_SECONDS)
                raise LabError(f"the controller did not come up; see {self.log}:\n{tail(self.log, 15)}")
            time.sleep(0.05)
        return record

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
        return True

    def stop(self, record: ProcessRecord) -> None:
        """End it in good order, or kill it after 15 s."""
        stop(record, STOP_SECONDS)

    def forward(self, port: int) -> ProcessRecord:
        """Forward 127.0.0.1:`port` to the controller's socket, bytes as they are: TLS ends in the controller.

        Raises LabError when the port is taken.
        """
        log = self.directory / "forward.log"
        argv = ["socat", f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,backlog=128", f"UNIX-CONNECT:{self.socket}"]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise LabError(
                    f"127.0.0.1:{port} cannot be forwarded ({error.strerror}); use another --port"
                ) from error
        record = spawn(argv, tag=self.directory, log=log)
        wait_for_port(record, port, 5, "the forwarder", log)
        return record


def free_port() -> int:
    """A port on 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment() -> dict[str, str]:
    """This process's environment without the settings of another controller: they would win over the file."""
    return {key: value for key, value in os.environ.items() if not key.startswith("OPENQRM_")}
