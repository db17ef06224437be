"""The page docs/howto/write-a-storage-plugin.md, followed to the letter: its pool passes conformance."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from openqrm.testing.storage_on_host import require_host

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs/howto/write-a-storage-plugin.md"
BLOCK = re.compile(r"^```(sh|diff)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
HUNK = re.compile(r"^--- (\S+)\n\+\+\+ (\S+)\n((?:[ +-].*\n|\n)+?)(?=^--- |\Z)", re.MULTILINE)
QUICK = "made_and_removed or keeps_what or two_callers"
SECONDS = 1800
"""For one block: the suite takes minutes on a busy machine."""


class Reader:
    """A developer: a shell with an environment of its own, in which what is installed here is found too."""

    def __init__(self, directory: Path) -> None:
        self.home = directory
        self.directory = directory / "work"
        self.directory.mkdir()
        environment = directory / "environment"
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        (python,) = environment.glob("lib/python*/site-packages")
        (python / "openqrm.pth").write_text(f"{sysconfig.get_path('purelib')}\n{REPOSITORY / 'src'}\n")
        for name, module in (("openqrm", "openqrm.cli.main"), ("pytest", "pytest")):
            program = environment / "bin" / name
            program.write_text(f'#!/bin/sh\nexec {environment}/bin/python -m {module} "$@"\n')
            program.chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PIP_NO_BUILD_ISOLATION": "0",  # which says: none; the tools to build with are here
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
            "PYTEST_ADDOPTS": "-p no:cacheprovider",
        }

    def shell(self, script: str, *, few: bool = False) -> str:
        """Run commands where the last ones ended; their output. `few`: of the suite, only what is quick."""
        where = self.home / "where"
        given = f'set -e\ncd "{self.directory}"\n{script}\npwd >"{where}"\n'
        quick = {"PYTEST_ADDOPTS": f"{self.environment['PYTEST_ADDOPTS']} -k '{QUICK}'"}
        environment = self.environment | (quick if few else {})
        done = subprocess.run(
            ["sh"], input=given, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        assert done.returncode == 0, f"{script}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
        self.directory = Path(where.read_text().strip())
        return done.stdout

    def edit(self, diff: str) -> None:
        """Lines that go and come, found by the lines around them."""
        hunks = list(HUNK.finditer(diff))
        assert sum(len(one[0]) for one in hunks) == len(diff), f"not understood: {diff}"
        for old_name, name, body in (one.groups() for one in hunks):
            lines = body.splitlines()
            old = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
            new = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
            file = self.directory / name
            if old_name == "/dev/null":
                assert not file.exists()
                file.write_text(new)
                continue
            text = file.read_text()
            assert text.count(old) == 1, f"{name} has not once:\n{old}"
            file.write_text(text.replace(old, new))


@pytest.mark.timeout(2400)
@pytest.mark.slow_lab
def test_the_page_ends_in_conformance(tmp_path: Path) -> None:
    require_host()
    reader = Reader(tmp_path)
    shown: list[str] = []
    for kind, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if kind == "sh":
            shown.append(reader.shell(text, few=len(shown) == 1))
        else:
            reader.edit(text)
    assert len(shown) == 3
    assert "shelf-storage: ok" in shown[0]
    assert re.search(r"^6 passed", shown[0], re.MULTILINE)
    assert re.search(r"^3 passed", shown[1], re.MULTILINE)
    assert "shelf-storage: ok" in shown[2]
    assert not re.search(r"does not declare (snapshot|clone-cow)|failed|gives no small", shown[2])
    passed = re.search(r"^(\d+) passed", shown[2], re.MULTILINE)
    assert passed, shown[2]
    assert int(passed[1]) > 40
    check_that_it_shows_up(reader)
    run = reader.shell("python -m ruff check --select E,F,I,UP,B . && python -m ruff format --check .")
    assert "already formatted" in run
    reader.shell("python -m mypy --strict --config-file /dev/null src")


def check_that_it_shows_up(reader: Reader) -> None:
    """Joined by itself, in the rows that API and command line list, and in the reference."""
    script = (
        "from openqrm.engine.plugins.catalogue import register;"
        "from openqrm.domain.plugin_state import PluginState;"
        "from openqrm.operations.core_plugins import installed;"
        "from openqrm.testing.memory import MemoryDatabase as M;"
        "w = M().write().__enter__(); register(w, installed());"
        'print(w.one(PluginState, name="shelf-storage").provides)'
    )
    provides = ast.literal_eval(reader.shell(f"python -c '{script}'"))
    assert provides["pools"] == {"shelf": ["clone", "clone-cow", "fill", "list", "snapshot"]}
    assert {"authorize", "snapshot"} <= set(provides["storage_types"]["shelf-nfs"])
    reader.shell("openqrm reference write --directory ../reference")
    page = (reader.directory.parent / "reference/plugins.md").read_text()
    assert "### Pool `shelf`" in page
    assert "| `shelf-nfs` | `shelf` | `nfs` | `nfs-root` |" in page
