"""Clients of NBD exports, by qemu-io: no kernel module, so that they run in any network namespace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from openqrm.testing.access import COUNTER_AT, MARK_AT, MachineAccess, read_back

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from openqrm.plugin_api.drivers import Client

PROGRAM = str(Path(__file__).with_name("nbd_client.py"))


class NbdAccess(MachineAccess):
    """NBD over TLS; `attach` has ROOT_SERVER, ROOT_PORTS and ROOT_EXPORT, and the secret is `psk`."""

    def read(self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str]) -> str | None:
        """On a session of its own."""
        done = self.machine(client).run(*_program(attach, "read", str(MARK_AT)), given=secrets["psk"])
        return read_back(done.stdout) if done.returncode == 0 else None

    def write(self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str], text: str) -> bool:
        """On a session of its own, with FUA."""
        done = self.machine(client).run(*_program(attach, "write", str(MARK_AT), text), given=secrets["psk"])
        return done.returncode == 0

    def start_counting(
        self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Callable[[], None]:
        """On one session, with FUA."""
        child = self.machine(client).start(*_program(attach, "count", str(COUNTER_AT)), given=secrets["psk"])

        def stop() -> None:
            child.kill()
            child.wait()

        return stop


def _program(attach: Mapping[str, str], *words: str) -> tuple[str, ...]:
    return sys.executable, PROGRAM, attach["ROOT_SERVER"], attach["ROOT_PORTS"], attach["ROOT_EXPORT"], *words
