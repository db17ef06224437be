"""The tutorial, run as it is written: its commands in order in one shell, and what it says they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from openqrm.admin.lab.datacentre import down
from openqrm.admin.lab.state import default_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorials" / "first-appliance.md"
NAME = "tutorial"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SECONDS = 300


@dataclass(frozen=True)
class Command:
    """A command of the tutorial and the lines it is said to print."""

    words: str
    printed: tuple[str, ...]

    def matches(self, text: str) -> bool:
        """Whether `text` is what the tutorial shows; `…` stands for anything, runs of spaces count as one."""
        parts = [re.escape(_even(part)) for part in "\n".join(self.printed).split("…")]
        return re.fullmatch(r"\s*" + ".*".join(parts) + r"\s*", _even(text), re.DOTALL) is not None


def _even(text: str) -> str:
    return re.sub(r"[ \t]+", " ", text)


def commands(text: str) -> list[Command]:
    """The commands in the console blocks of a page, in order."""
    found: list[Command] = []
    for block in _BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE):
            if part:
                words, *printed = part.rstrip("\n").split("\n")
                found.append(Command(words, tuple(printed)))
    return found


class Shell:
    """One bash, as the reader has it: directory and variables stay from one command to the next."""

    def __init__(self, home: Path) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENQRM_")}
        environment |= {"XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        self.bash = subprocess.Popen(
            ["bash", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def __call__(self, words: str) -> tuple[int, str]:
        """Exit status and output of a command; it gets nothing to read."""
        assert self.bash.stdin is not None
        assert self.bash.stdout is not None
        self.bash.stdin.write(f'{{ {words}\n}} </dev/null; status=$?; echo; echo "<ended $status>"\n')
        self.bash.stdin.flush()
        lines: list[str] = []
        for line in self.bash.stdout:
            ended = re.fullmatch(r"<ended (\d+)>\n", line)
            if ended:
                return int(ended[1]), "".join(lines)
            lines.append(line)
        raise AssertionError(f"the shell ended in: {words}\n{''.join(lines)}")

    def end(self) -> None:
        """End it."""
        self.bash.kill()
        self.bash.wait()


@pytest.fixture
def shell(tmp_path: Path, bios: None) -> Iterator[Shell]:
    down(default_directory(NAME), NAME)
    made = Shell(tmp_path)
    yield made
    made.end()
    down(default_directory(NAME), NAME)


def test_the_shell_keeps_what_a_command_changed_and_tells_how_it_ended(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    try:
        assert shell("cd /; WORD=here; false") == (1, "\n")
        assert shell("echo $PWD $WORD; cat") == (0, "/ here\n\n")
    finally:
        shell.end()


def test_what_differs_is_found() -> None:
    (step,) = commands("```console\n$ show\nID  …\n…\nlast\n```\n")
    assert step.matches("ID   NAME\n1    a\nlast\n\n")
    assert not step.matches("ID   NAME\n1    a\nlost\n")


@pytest.mark.lab
@pytest.mark.timeout(900)
def test_tutorial(shell: Shell) -> None:
    steps = commands(TUTORIAL.read_text(encoding="utf-8"))
    assert len(steps) > 20
    for step in steps:
        status, text = shell(step.words)
        print(f"$ {step.words}\n{text}", flush=True)
        assert status == 0, f"{step.words} ended with {status}:\n{text}"
        assert step.matches(text), f"{step.words} printed\n{text}\nand the tutorial says\n{chr(10).join(step.printed)}"
