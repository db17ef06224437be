"""What a test of the real thing needs. Without it the test fails in CI, and elsewhere is skipped with the reason."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, NoReturn

import pytest

from openqrm.admin.lab import requirements

if TYPE_CHECKING:
    from openqrm.admin.lab.state import Firmware

SEARCHED = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where servers are, and an account that is not root does not look."""


def root_and(*programs: str) -> None:
    """Go on only as root and with all of these programs."""
    if os.geteuid() != 0:
        lacking("needs root")
    have(*programs)


def have(*programs: str) -> None:
    """Go on only with all of these programs."""
    path = f"{SEARCHED}:{os.environ.get('PATH', '')}"
    missing = [name for name in programs if shutil.which(name, path=path) is None]
    if missing:
        lacking(f"needs {', '.join(missing)}")


def lab(firmware: Firmware = "bios") -> None:
    """Go on only where a virtual datacentre can be brought up."""
    missing = [f"{need.what} ({need.package})" for need in requirements.missing(firmware)]
    missing += [] if os.geteuid() == 0 else ["root"]
    if missing:
        lacking(f"a virtual datacentre needs: {', '.join(missing)}")


def lacking(reason: str) -> NoReturn:
    """End the test: it cannot be run here."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
