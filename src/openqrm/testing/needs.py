"""What a test of the real thing needs missing in CI it fails, elsewhere it is skipped, with the reason."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

SEARCHED = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where servers are, and an account that is not root does not look."""


def root_and(*programs: str) -> None:
    """Go on only as root and with all of these programs."""
    path = f"{SEARCHED}:{os.environ.get('PATH', '')}"
    missing = [name for name in programs if shutil.which(name, path=path) is None]
    if missing or os.geteuid() != 0:
        lacking(f"needs root and: {', '.join(missing or programs)}")


def lacking(reason: str) -> NoReturn:
    """End the test: it cannot be run here."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
