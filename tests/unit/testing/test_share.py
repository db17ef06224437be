"""Which slow tests a commit runs: a share of them, and all of what is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from openqrm.testing import share

HERE = Path(__file__).resolve()


@pytest.mark.parametrize(
    ("arguments", "is_named"),
    [
        ((HERE.name,), True),
        ((str(HERE),), True),
        ((f"{HERE.name}::test_x[one::two]", "../docs/test_docs.py"), True),
        ((HERE.name, ".."), True),
        (("..", "test_other.py"), False),
        ((".",), False),
        (("../docs/test_docs.py",), False),
        ((), False),
    ],
)
def test_a_file_that_is_named(arguments: tuple[str, ...], is_named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(share.VARIABLE, raising=False)
    assert share.named(arguments, HERE, HERE.parent) is is_named
    monkeypatch.setenv(share.VARIABLE, "7")
    assert not share.named(arguments, HERE, HERE.parent)


THINGS = [f"{group}::{number}" for group in "abcdefgh" for number in range(100)]


def test_a_share_is_one_of_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(share.VARIABLE, raising=False)
    run = share.of_commit("a commit", THINGS)
    assert len(run) == 54
    assert run != share.of_commit("another", THINGS)
    assert "one of 15 slow tests; OPENQRM_LAB_SHARE=all" in share.reason()
    assert len(share.of_commit("a commit", THINGS[:3])) == 1
    assert not share.of_commit("a commit", ())


def test_every_thing_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(share.VARIABLE, raising=False)
    run = {thing for commit in range(100) for thing in share.of_commit(f"commit {commit}", THINGS[:40])}
    assert run == set(THINGS[:40])


def test_things_of_a_group_are_run_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(share.VARIABLE, raising=False)
    run = {share.of_commit(f"commit {number}", THINGS, 20, lambda thing: thing[0]) for number in range(50)}
    assert {len(each) for each in run} == {40}
    assert all(len({thing[0] for thing in each}) == 1 for each in run)
    assert {thing[0] for each in run for thing in each} == set("abcdefgh")


def test_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(share.VARIABLE, "all")
    assert share.of_commit("a commit", THINGS) == set(THINGS)
    monkeypatch.setenv(share.VARIABLE, "4")
    assert len(share.of_commit("a commit", THINGS, 60)) == 200
    for wrong in ("0", "-1", "half"):
        monkeypatch.setenv(share.VARIABLE, wrong)
        with pytest.raises(ValueError, match="OPENQRM_LAB_SHARE is `all` or a number from 1"):
            share.of_commit("a commit", THINGS)
