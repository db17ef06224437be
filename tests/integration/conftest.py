"""Conformance of storage types takes minutes for each: beside the first type, every commit runs a share of them."""

from __future__ import annotations

import pytest

from openqrm.testing import share
from openqrm.testing.storage_suite import ExportSuite, PoolSuite

ALWAYS = ("test_nfs",)
"""Modules whose types are run for every commit."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the types that are not in this commit's share; a type is run whole or not at all."""
    commit = share.head()
    for item in items:
        kind, module = getattr(item, "cls", None), getattr(item, "module", None)
        if kind is None or module is None or not issubclass(kind, (PoolSuite, ExportSuite)):
            continue
        name = module.__name__.rpartition(".")[2]
        reason = "" if name in ALWAYS else share.left_out(commit, f"{name}::{kind.__name__}")
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
