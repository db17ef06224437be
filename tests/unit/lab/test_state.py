"""What is recorded of a lab, and what is refused before anything is made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from openqrm.admin.lab import state
from openqrm.admin.lab.errors import LabError, NotUpError
from openqrm.admin.lab.process import ProcessRecord

if TYPE_CHECKING:
    from pathlib import Path


def test_a_saved_state_is_read_back_as_it_was(tmp_path: Path) -> None:
    spec = state.LabSpec(name="x", nodes=3, firmware="uefi", controller_command=("a", "b"), installation_key="k")
    saved = state.LabState(spec, "boot", "tcg", 8443, complete=True).with_process("node1", ProcessRecord(7, 42))
    state.save(tmp_path, saved)
    assert state.load(tmp_path) == saved


def test_forgetting_a_process_keeps_the_others() -> None:
    both = state.LabState(state.LabSpec(), "boot")
    both = both.with_process("a", ProcessRecord(1, 1)).with_process("b", ProcessRecord(2, 2))
    assert both.with_process("a", None).processes == {"b": ProcessRecord(2, 2)}


def test_a_lab_that_did_not_come_up_or_is_of_another_boot_is_not_up(tmp_path: Path) -> None:
    with pytest.raises(NotUpError, match="openqrm lab up"):
        state.require(tmp_path)
    half = state.LabState(state.LabSpec(), state.current_boot_id())
    state.save(tmp_path, half)
    with pytest.raises(NotUpError):
        state.require(tmp_path)
    state.save(tmp_path, state.LabState(state.LabSpec(), "another boot", complete=True))
    with pytest.raises(NotUpError):
        state.require(tmp_path)
    state.save(tmp_path, state.LabState(state.LabSpec(), state.current_boot_id(), complete=True))
    assert state.require(tmp_path).complete


def test_a_state_of_another_version_is_named_and_not_guessed_at(tmp_path: Path) -> None:
    (tmp_path / state.STATE_FILE).write_text(json.dumps({"version": 99, "spec": {"controller_command": []}}))
    with pytest.raises(LabError, match="another version"):
        state.load(tmp_path)
    (tmp_path / state.STATE_FILE).write_text("{")
    with pytest.raises(LabError, match="cannot be read"):
        state.load(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": "Lab"}, "lab name"),
        ({"name": "a" * 25}, "lab name"),
        ({"name": "../x"}, "lab name"),
        ({"nodes": -1}, "--nodes"),
        ({"nodes": 65}, "--nodes"),
        ({"memory_mb": 64}, "--memory"),
        ({"firmware": "coreboot"}, "firmware"),
    ],
)
def test_what_cannot_work_is_refused_with_the_option_to_change(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(LabError, match=says):
        state.LabSpec(**wrong)  # type: ignore[arg-type] # the wrong types are the point


def test_only_one_command_changes_a_lab_at_a_time(tmp_path: Path) -> None:
    with state.locked(tmp_path / "lab"), pytest.raises(LabError, match="another"), state.locked(tmp_path / "lab"):
        pass
    with state.locked(tmp_path / "lab"):
        pass


def test_a_lock_that_its_holder_removed_can_be_taken_again(tmp_path: Path) -> None:
    with state.locked(tmp_path / "lab") as lock:
        lock.unlink()
    with state.locked(tmp_path / "lab") as lock:
        assert lock.exists()


def test_the_directory_can_be_set_by_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENQRM_LAB_DIR", raising=False)
    assert state.default_directory("x") == state.BASE_DIRECTORY / "x"
    monkeypatch.setenv("OPENQRM_LAB_DIR", str(tmp_path))
    assert state.default_directory("x") == tmp_path.resolve()
