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
    """NFSv4; `attach` has ROOT_SERVER and ROOT_PATH, and ROOT_LENT_PATH, which is tried first, for what is lent."""

    def read(self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str]) -> str | None:
        """As a mount that is made for it."""
        del secrets  # NFS has none
        for path in self._paths(attach):
            done = self.machine(client).run("nfs-cat", f"nfs://{attach['ROOT_SERVER']}{path}/{MARK}?version=4")
            if done.returncode == 0:
                return done.stdout
        return None

    def write(self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str], text: str) -> bool:
        """As a mount that is made for it."""
        del secrets
        machine, server = self.machine(client), attach["ROOT_SERVER"]
        tried = (machine.run(*self._program(server, path, MARK), text) for path in self._paths(attach))
        return any(done.returncode == 0 for done in tried)

    def start_counting(
        self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Callable[[], None]:
        """One session and one open file."""
        del secrets
        child = self.machine(client).start(*self._program(attach["ROOT_SERVER"], attach["ROOT_PATH"], COUNTER))

        def stop() -> None:
            child.kill()
            child.wait()

        return stop

    @staticmethod
    def _paths(attach: Mapping[str, str]) -> list[str]:
        return [attach[name] for name in ("ROOT_LENT_PATH", "ROOT_PATH") if name in attach]

    @staticmethod
    def _program(server: str, path: str, name: str) -> tuple[str, ...]:
        return sys.executable, PROGRAM, server, path, f"/{name}"
