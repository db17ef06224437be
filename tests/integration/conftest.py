"""Conformance of storage types takes minutes for each: beside the first type, every commit runs a share of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from openqrm.testing import share
from openqrm.testing.storage_suite import ExportSuite, PoolSuite

HERE = Path(__file__).parent
ALWAYS = ("test_nfs",)
"""Modules whose types are run for every commit."""
EMULATED = ("test_lvm", "test_nfs_kernel", "test_iscsi_lio")
"""Modules whose storage host is an emulated machine: a type takes half an hour, so single tests take turns."""
EMULATED_SHARE = 60


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the types, and of some the tests, that are not in this commit's share."""
    commit = share.head()
    for item in items:
        if share.named(config.args, item.path, config.invocation_params.dir):
            continue
        if item.get_closest_marker("slow_lab") is not None and item.path.is_relative_to(HERE):
            reason = share.left_out(commit, item.nodeid)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))
            continue
        kind, module = getattr(item, "cls", None), getattr(item, "module", None)
        if kind is None or module is None or not issubclass(kind, (PoolSuite, ExportSuite)):
            continue
        name = module.__name__.rpartition(".")[2]
        if name in EMULATED:
            reason = share.left_out(commit, item.nodeid, EMULATED_SHARE)
        else:
            reason = "" if name in ALWAYS else share.left_out(commit, f"{name}::{kind.__name__}")
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
