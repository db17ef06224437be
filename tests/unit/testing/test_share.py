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


def test_a_share_is_one_of_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(share.VARIABLE, raising=False)
    run = [number for number in range(1000) if not share.left_out("a commit", f"test {number}")]
    assert 70 < len(run) < 130
    assert run != [number for number in range(1000) if not share.left_out("another", f"test {number}")]
    left = min(set(range(1000)) - set(run))
    assert "OPENQRM_LAB_SHARE=all" in share.left_out("a commit", f"test {left}")
    monkeypatch.setenv(share.VARIABLE, "all")
    assert share.left_out("a commit", f"test {left}") == ""
