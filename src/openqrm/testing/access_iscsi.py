"""Clients of iSCSI exports, by libiscsi: no kernel driver, so that they run in any network namespace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from openqrm.testing.access import MachineAccess, read_back

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from openqrm.plugin_api.drivers import Client

PROGRAM = str(Path(__file__).with_name("iscsi_client.py"))


class IscsiAccess(MachineAccess):
    """`attach` is what the root-mount hook gets, too; the export's secret is `chap`."""

    def read(self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str]) -> str | None:
        """On a session of its own."""
        done = self.machine(client).run(*_program(attach, "read"), given=secrets["chap"])
        return read_back(done.stdout) if done.returncode == 0 else None

    def write(self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str], text: str) -> bool:
        """On a session of its own."""
        done = self.machine(client).run(*_program(attach, "write"), text, given=secrets["chap"])
        return done.returncode == 0

    def start_counting(
        self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Callable[[], None]:
        """One session; anew after some failed writes."""
        child = self.machine(client).start(*_program(attach, "count"), given=secrets["chap"])

        def stop() -> None:
            child.kill()
            child.wait()

        return stop


def _program(attach: Mapping[str, str], verb: str) -> tuple[str, ...]:
    names = ("ROOT_TARGET", "ROOT_LUN", "ROOT_INITIATOR", "ROOT_USER")
    portal = f"{attach['ROOT_PORTAL']}:{attach['ROOT_PORT']}"
    return (sys.executable, PROGRAM, portal, *(attach[name] for name in names), verb)
