"""Conformance of storage types takes minutes for each: beside the first type, every commit runs a share of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from openqrm.testing import share
from openqrm.testing.storage_suite import ExportSuite, PoolSuite

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
ALWAYS = ("test_nfs",)
"""Modules whose types are run for every commit."""
EMULATED = ("test_lvm", "test_nfs_kernel", "test_iscsi_lio")
"""Modules whose storage host is an emulated machine: a type takes an hour, so single tests take turns."""
EMULATED_SHARE = 60


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the types, and of some the tests, that are not in this commit's share."""
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    asked = [item for item in ours if not share.named(config.args, item.path, config.invocation_params.dir)]
    emulated = [item for item in asked if item.path.stem in EMULATED]
    types = [item for item in asked if _is_of_a_type(item) and item.path.stem not in (*ALWAYS, *EMULATED)]
    slow = [item for item in asked if item.get_closest_marker("slow_lab") is not None]
    _take_turns([item for item in slow if item not in (*emulated, *types)], one_of=share.DEFAULT, what=_itself)
    _take_turns(types, one_of=share.DEFAULT, what=_type)
    # Of one type, so that one machine is booted.
    _take_turns(emulated, one_of=EMULATED_SHARE, what=_itself, group=lambda test: test.rpartition("::")[0])


def _take_turns(
    items: list[pytest.Item],
    one_of: int,
    what: Callable[[pytest.Item], str],
    group: Callable[[str], str] = str,
) -> None:
    run = share.of_commit(share.head(), (what(item) for item in items), one_of, group)
    for item in items:
        if what(item) not in run:
            item.add_marker(pytest.mark.skip(reason=share.reason(one_of)))


def _itself(item: pytest.Item) -> str:
    return item.nodeid


def _type(item: pytest.Item) -> str:
    return item.nodeid.rpartition("::")[0]


def _is_of_a_type(item: pytest.Item) -> bool:
    kind = getattr(item, "cls", None)
    return kind is not None and issubclass(kind, (PoolSuite, ExportSuite))
