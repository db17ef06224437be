"""Scripts of storage hosts that are run on this machine leave nothing on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _pools(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENQRM_POOLS", str(_notes(tmp_path_factory)))


def _notes(factory: pytest.TempPathFactory) -> Path:
    return factory.getbasetemp() / "pools"
