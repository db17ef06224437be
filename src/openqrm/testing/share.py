"""Slow tests take turns: each commit runs a share of them, chosen by its hash, so that all are run again and again.

`OPENQRM_LAB_SHARE=all` runs every one; `OPENQRM_LAB_SHARE=N` every Nth (default: 10). A test file that is named on the
command line, not only a folder that holds it, is run whole unless the variable says otherwise: somebody waits for it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VARIABLE = "OPENQRM_LAB_SHARE"
DEFAULT = 10


def head() -> str:
    """The present commit, or what stands for it outside a repository."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no commit"


def number(commit: str, what: str) -> int:
    """A number that is the same for the same commit and the same thing, and spread evenly."""
    return int.from_bytes(hashlib.sha256(f"{commit} {what}".encode()).digest()[:8], "big")


def named(arguments: Sequence[str], file: Path, directory: Path) -> bool:
    """Whether pytest was given a test's file, or a test in it, and the variable is not set.

    `arguments` are pytest's (`config.args`), `directory` is where they were given.
    """
    given = ((directory / argument.partition("::")[0]).resolve() for argument in arguments)
    return file in given and not os.environ.get(VARIABLE)


def left_out(commit: str, test_id: str, of: int = DEFAULT) -> str:
    """Why a slow test, one of `of`, is not run for this commit; empty when it is. ValueError for a wrong setting."""
    share = os.environ.get(VARIABLE) or str(of)
    if share == "all" or number(commit, test_id) % int(share) == 0:
        return ""
    return f"not in the share of this commit, one of {share} slow tests; {VARIABLE}=all runs every one"
