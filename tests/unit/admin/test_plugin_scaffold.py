"""`openqrm plugin new` makes a plug-in that passes its own test and the check; the check finds what is wrong."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel

from openqrm.admin import plugin_check, plugins
from openqrm.engine.plugins import catalogue as catalogues
from openqrm.plugin_api.drivers import Medium, Pool
from openqrm.plugin_api.hooks import HookSet
from openqrm.plugin_api.loading import load
from openqrm.plugin_api.operation import Operation
from openqrm.plugin_api.plugin import BootService, Family, NodeFile, Plugin, Requires, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugin]:
    plugins.new("say-hello", Family.MONITORING, tmp_path / "new")
    monkeypatch.syspath_prepend(str(tmp_path / "new" / "src"))
    load.cache_clear()
    yield importlib.import_module("openqrm_say_hello.plugin").PLUGIN
    load.cache_clear()
    for name in [name for name in sys.modules if name.startswith("openqrm_say_hello")]:
        del sys.modules[name]


def wrong(plugin: Plugin) -> str:
    return "\n".join(plugin_check.faults(plugin, catalogues.of([plugin])))


def test_a_new_plugin_is_sound_typed_tidy_and_tested(made: Plugin, tmp_path: Path) -> None:
    assert (made.name, made.family) == ("say-hello", Family.MONITORING)
    assert wrong(made) == ""
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "new" / "src")}
    configuration = str(REPOSITORY / "pyproject.toml")
    for command in (
        ("pytest", "-q", "-c", "/dev/null", "tests"),
        ("ruff", "check", "--config", configuration, "src"),
        ("mypy", "--strict", "--config-file", "/dev/null", "src"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path / "new",
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_name_or_an_existing_directory_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("../up", "With Blank", "under_score", ""):
        with pytest.raises(ValueError, match="no plug-in name"):
            plugins.new(name, Family.OTHER, tmp_path / "x")
    assert plugins.main(["new", "one", "--directory", str(tmp_path)]) == 1
    assert "exists" in capsys.readouterr().err


def test_the_built_in_plugins_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert plugins.main(["check"]) == 0
    assert "dhcpd: ok" in capsys.readouterr().out
    assert plugins.main(["check", "no-such"]) == 1


class Bare(BaseModel):
    """Settings without titles, defaults and strictness."""

    size: int


PACKAGE = "openqrm_say_hello"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"init": f"{PACKAGE}.nowhere:init"}, "init: openqrm_say_hello.nowhere:init cannot be loaded"),
        ({"init": f"{PACKAGE}.plugin:PLUGIN"}, "cannot be called"),
        ({"provides": (Pool("p", Medium.TREE, frozenset(), f"{PACKAGE}.hooks:Absent"),)}, "driver of p"),
        ({"hooks": HookSet(assign=f"{PACKAGE}.hooks:none")}, "hook assign"),
        ({"hooks": HookSet(appliance=f"{PACKAGE}.hooks:resource")}, "must take 4 arguments"),
        ({"hooks": HookSet(monitor="builtins:max")}, "must be an async function"),
        ({"services": (Service("s", f"{PACKAGE}.hooks:resource"),)}, "must be an async function of one argument"),
        ({"node_files": (NodeFile("root-mount.x", "absent"),)}, "there is no absent"),
        ({"boot_services": (BootService("b", "boot"),)}, "boot/start is not an executable file"),
        ({"settings": Bare}, "setting size has no Attr"),
        ({"settings": Bare}, "setting size has no default"),
        ({"settings": Bare}, "accepts unknown fields"),
        ({"operations": (Operation("A.b", "t", "s", act="x:y"),)}, "in lower case"),
        ({"requires": Requires(plugins=("absent",))}, "requires plug-in absent"),
    ],
)
def test_each_fault_is_found(made: Plugin, changes: dict[str, object], fault: str) -> None:
    assert fault in wrong(replace(made, **changes))  # type: ignore[arg-type]  # fields by name


def test_imports_of_the_core_are_found(made: Plugin, tmp_path: Path) -> None:
    code = tmp_path / "new" / "src" / PACKAGE
    (code / "greedy.py").write_text(
        "from openqrm.engine import core\nimport openqrm.store.database\nfrom openqrm import api\n"
    )
    text = wrong(made)
    for name in ("openqrm.engine", "openqrm.store.database", "openqrm.api"):
        assert f"greedy.py imports {name}:" in text
    (code / "README.md").unlink()
    assert "no README.md" in wrong(made)
