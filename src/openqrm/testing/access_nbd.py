"""Clients of NBD exports, by qemu-io: no kernel module, so that they run in any network namespace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from openqrm.testing.access import ProgramAccess

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM = str(Path(__file__).with_name("nbd_client.py"))


class NbdAccess(ProgramAccess):
    """NBD over TLS, writing with FUA; `attach` has ROOT_SERVER, ROOT_PORTS and ROOT_EXPORT."""

    secret = "psk"  # noqa: S105  # its name

    def words(self, attach: Mapping[str, str]) -> tuple[str, ...]:
        """Server, ports and export."""
        return sys.executable, PROGRAM, attach["ROOT_SERVER"], attach["ROOT_PORTS"], attach["ROOT_EXPORT"]
