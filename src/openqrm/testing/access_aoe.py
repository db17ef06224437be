"""Clients of AoE exports, by raw Ethernet frames: no kernel module, so that they run in any network namespace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from openqrm.testing.access import COUNTER_AT, MARK_AT, MachineAccess, read_back

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from openqrm.plugin_api.drivers import Client

PROGRAM = str(Path(__file__).with_name("aoe_client.py"))


class AoeAccess(MachineAccess):
    """ATA over Ethernet; `attach` has ROOT_AOE. There are no secrets: who may is decided by the MAC address."""

    def read(self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str]) -> str | None:
        """Four frames."""
        del secrets
        done = self.machine(client).run(sys.executable, PROGRAM, attach["ROOT_AOE"], "read", str(MARK_AT))
        return read_back(done.stdout) if done.returncode == 0 else None

    def write(self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str], text: str) -> bool:
        """Four frames."""
        del secrets
        words = (sys.executable, PROGRAM, attach["ROOT_AOE"], "write", str(MARK_AT), text)
        return self.machine(client).run(*words).returncode == 0

    def start_counting(
        self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Callable[[], None]:
        """AoE has no session: frames to the server that answered last."""
        del secrets
        words = (sys.executable, PROGRAM, attach["ROOT_AOE"], "count", str(COUNTER_AT))
        child = self.machine(client).start(*words)

        def stop() -> None:
            child.kill()
            child.wait()

        return stop
