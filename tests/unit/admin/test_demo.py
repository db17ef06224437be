"""What the demo prints can be pasted into a shell."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from openqrm.admin import demo
from openqrm.admin.lab.datacentre import Lab
from openqrm.admin.lab.kernel import KernelRoot
from openqrm.admin.lab.state import LabSpec, LabState
from openqrm.api.compact import compact
from openqrm.cli import options
from openqrm.operations.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

OPERATIONS = {(each["kind"], each["verb"]): each for each in compact(Registry.of_installation())["operations"]}


class Recorder(demo.Cli):
    """Prints as the real one does and asks nobody."""

    def _run(self, words: Sequence[str], given: str) -> str:
        del words, given
        return ""


def test_every_printed_command_is_one_and_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab = Lab(tmp_path / "a lab", LabState(LabSpec(name="demo"), "boot", api_port=8447))
    lab.controller.home.mkdir(parents=True)
    archive = tmp_path / "small.tar"
    archive.write_bytes(b"")
    cli = Recorder(lab.url, tmp_path / "ca.pem", tmp_path / "home of it")
    demo.set_up(lab, cli, demo.Ingredients(KernelRoot(tmp_path / "a root", "6.1"), archive))
    printed = [line.strip().removeprefix("$ ") for line in capsys.readouterr().out.splitlines()]
    assert len(printed) == 14
    for line in printed:
        command, kind, verb, *rest = shlex.split(line)
        assert command == "openqrm"
        operation = OPERATIONS[kind, verb]
        options.arguments(operation, options.operation_parser(operation).parse_args(rest))
        assert "{" not in line

    last = demo.farewell(lab, "secret", cli)
    assert "admin / secret; the CLI line below is logged in already" in last
    export = next(line.split("export ")[1] for line in last.splitlines() if "export " in line)
    assert f"XDG_CONFIG_HOME={tmp_path}/home of it" in shlex.split(export)
    assert f"doctor --config {shlex.quote(str(lab.controller.configuration))}" in last
