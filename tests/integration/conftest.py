"""Conformance of storage types takes minutes for each: beside the first type, every commit runs a share of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from openqrm.testing import share
from openqrm.testing.storage_suite import ExportSuite, PoolSuite

HERE = Path(__file__).parent
ALWAYS = ("test_nfs",)
"""Modules whose types are run for every commit."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the types that are not in this commit's share; a type is run whole or not at all."""
    commit = share.head()
    for item in items:
        if item.get_closest_marker("slow_lab") is not None and item.path.is_relative_to(HERE):
            reason = share.left_out(commit, item.nodeid)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))
            continue
        kind, module = getattr(item, "cls", None), getattr(item, "module", None)
        if kind is None or module is None or not issubclass(kind, (PoolSuite, ExportSuite)):
            continue
        name = module.__name__.rpartition(".")[2]
        reason = "" if name in ALWAYS else share.left_out(commit, f"{name}::{kind.__name__}")
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
