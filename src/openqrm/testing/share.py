"""Slow tests take turns: each commit runs a share of them, chosen by its hash, so that all are run again and again.

`OPENQRM_LAB_SHARE=all` runs every one; `OPENQRM_LAB_SHARE=N` every Nth (default: 15). A test file that is named on the
command line, not only a folder that holds it, is run whole unless the variable says otherwise: somebody waits for it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

VARIABLE = "OPENQRM_LAB_SHARE"
DEFAULT = 15


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


def of_commit(
    commit: str, things: Iterable[str], of: int = DEFAULT, group: Callable[[str], str] = str
) -> frozenset[str]:
    """Which of these slow things this commit runs: one of `of`, and at least one. ValueError for a wrong setting.

    It is as many for every commit, so that no commit takes much longer than others. Things of one group are near each
    other: what each group has to set up is set up for few of them.
    """
    every = sorted(set(things), key=lambda thing: (number(commit, group(thing)), number(commit, thing)))
    share = _one_of(of)
    return frozenset(every[: -(-len(every) // share)])


def reason(of: int = DEFAULT) -> str:
    """What is said of a thing that is left out."""
    return f"not in the share of this commit, one of {_one_of(of)} slow tests; {VARIABLE}=all runs every one"


def _one_of(of: int) -> int:
    """The setting, or what it is without one."""
    given = os.environ.get(VARIABLE) or str(of)
    if given != "all" and not (given.isdecimal() and int(given)):
        raise ValueError(f"{VARIABLE} is `all` or a number from 1, not {given!r}")
    return 1 if given == "all" else int(given)
