"""Clients of AoE exports, by raw Ethernet frames: no kernel module, so that they run in any network namespace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from openqrm.testing.access import ProgramAccess

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM = str(Path(__file__).with_name("aoe_client.py"))


class AoeAccess(ProgramAccess):
    """ATA over Ethernet: four frames a block, to the server that answered last; there is no session.

    `attach` has ROOT_AOE. There are no secrets: who may is decided by the MAC address.
    """

    def words(self, attach: Mapping[str, str]) -> tuple[str, ...]:
        """Shelf and slot."""
        return sys.executable, PROGRAM, attach["ROOT_AOE"]
