"""`openqrm lab` from the command line: messages and exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openqrm.admin.lab import command, requirements
from openqrm.admin.lab.datacentre import Lab
from openqrm.admin.lab.requirements import Need

if TYPE_CHECKING:
    from pathlib import Path


def test_no_lab_is_status_3_and_says_how_to_start_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["status"], ["power", "node1", "on"], ["console", "node1"], ["exec", "true"]):
        assert command.main([words[0], "--dir", str(tmp_path), *words[1:]]) == 3
        assert "openqrm lab up" in capsys.readouterr().err


def test_what_is_missing_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(requirements, "ALWAYS", (Need("no-such-command", "some-package", "for this test"),))
    assert command.main(["up", "--dir", str(tmp_path / "lab")]) == 2
    said = capsys.readouterr().err
    assert "no-such-command: for this test" in said
    assert "apt-get install -y --no-install-recommends some-package" in said
    assert not (tmp_path / "lab").exists()


def test_without_root_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for verb in ("up", "down"):
        assert command.main([verb, "--dir", str(tmp_path / "lab")]) == 2
        assert "as root" in capsys.readouterr().err


def test_a_directory_with_other_things_in_it_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(requirements, "ALWAYS", ())
    precious = tmp_path / "thesis.txt"
    precious.write_text("years of work")
    for words in (["up"], ["down"]):
        assert command.main([*words, "--name", "unit-refused", "--dir", str(tmp_path)]) == 1
        assert "holds no lab" in capsys.readouterr().err
    assert precious.read_text() == "years of work"


def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["fly"], ["up", "--firmware", "coreboot"], ["power", "node1", "explode"]):
        with pytest.raises(SystemExit) as ended:
            command.main(words)
        assert ended.value.code == 2
    assert capsys.readouterr().err


def test_a_lab_that_cannot_be_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command.main(["up", "--nodes", "1000", "--dir", str(tmp_path)]) == 1
    assert "0 to 64" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("action", "said"),
    [("on", "node1 is on"), ("off", "node1 is off"), ("shutdown", "power button"), ("reset", "reset")],
)
def test_power_says_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], action: str, said: str
) -> None:
    done: list[tuple[str, str]] = []

    class Up:
        def power(self, node: str, verb: str) -> None:
            done.append((node, verb))

    monkeypatch.setattr(Lab, "open", lambda directory: Up())
    assert command.main(["power", "--dir", str(tmp_path), "node1", action]) == 0
    assert done == [("node1", action)]
    assert said in capsys.readouterr().out
