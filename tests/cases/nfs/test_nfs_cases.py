"""Runs the case files of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openqrm.plugins.storage.dir.plugin import PLUGIN as DIR
from openqrm.plugins.storage.lvm.plugin import PLUGIN as LVM
from openqrm.plugins.storage.nfs.plugin import PLUGIN
from openqrm.testing.cases import check_case, load_cases

CASES = load_cases(Path(__file__).parent)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_case(case: dict[str, Any]) -> None:
    check_case(PLUGIN, case, others=(DIR, LVM))
