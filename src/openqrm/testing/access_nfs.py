"""Clients of NFS exports, by libnfs: no mount, so that they run in any network namespace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from openqrm.testing.access import COUNTER, MARK, MachineAccess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from openqrm.plugin_api.drivers import Client

PROGRAM = str(Path(__file__).with_name("nfs_counter.py"))


class NfsAccess(MachineAccess):
    """NFSv4; `attach` has ROOT_SERVER and ROOT_PATH."""

    def read(self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str]) -> str | None:
        """As a mount that is made for it."""
        del secrets  # NFS has none
        address = f"nfs://{attach['ROOT_SERVER']}{attach['ROOT_PATH']}/{MARK}?version=4"
        done = self.machine(client).run("nfs-cat", address)
        return done.stdout if done.returncode == 0 else None

    def write(self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str], text: str) -> bool:
        """As a mount that is made for it."""
        del secrets
        done = self.machine(client).run(*self._program(attach, MARK), text)
        return done.returncode == 0

    def start_counting(
        self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Callable[[], None]:
        """One session and one open file."""
        del secrets
        child = self.machine(client).start(*self._program(attach, COUNTER))

        def stop() -> None:
            child.kill()
            child.wait()

        return stop

    @staticmethod
    def _program(attach: Mapping[str, str], name: str) -> tuple[str, ...]:
        return sys.executable, PROGRAM, attach["ROOT_SERVER"], attach["ROOT_PATH"], f"/{name}"
