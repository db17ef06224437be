"""Conformance of storage types takes minutes for each, on emulated machines an hour: tests of one type take turns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from openqrm.testing import share
from openqrm.testing.storage_suite import ExportSuite, PoolSuite

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
EMULATED = ("test_lvm", "test_nfs_kernel", "test_iscsi_lio")
"""Modules whose storage host is an emulated machine."""
TYPE_SHARE = 15
"""About half a type: so many minutes on the lab's storage host."""
EMULATED_SHARE = 80
"""A few tests of one type."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not in this commit's share; of the types it is of one, so that one host is set up."""
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    asked = [item for item in ours if not share.named(config.args, item.path, config.invocation_params.dir)]
    emulated = [item for item in asked if item.path.stem in EMULATED]
    types = [item for item in asked if _is_of_a_type(item) and item not in emulated]
    slow = [item for item in asked if item.get_closest_marker("slow_lab") and item not in (*emulated, *types)]
    _take_turns(slow, share.DEFAULT)
    _take_turns(types, TYPE_SHARE, group=_type)
    _take_turns(emulated, EMULATED_SHARE, group=_type)


def _take_turns(items: list[pytest.Item], one_of: int, group: Callable[[str], str] = str) -> None:
    run = share.of_commit(share.head(), (item.nodeid for item in items), one_of, group)
    for item in items:
        if item.nodeid not in run:
            item.add_marker(pytest.mark.skip(reason=share.reason(one_of)))


def _type(test: str) -> str:
    return test.rpartition("::")[0]


def _is_of_a_type(item: pytest.Item) -> bool:
    kind = getattr(item, "cls", None)
    return kind is not None and issubclass(kind, (PoolSuite, ExportSuite))
