"""Runs the case files of this folder, and what cases cannot say: what is refused as an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openqrm.plugins.storage.file.plugin import PLUGIN as FILE
from openqrm.plugins.storage.iscsi.facts import parse_iscsi
from openqrm.plugins.storage.iscsi.plugin import PLUGIN
from openqrm.testing.cases import check_case, load_cases

CASES = load_cases(Path(__file__).parent)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_case(case: dict[str, Any]) -> None:
    check_case(PLUGIN, case, others=(FILE,))


def test_something_else_than_the_facts_is_refused() -> None:
    with pytest.raises(ValueError, match="no iSCSI server ganesha"):
        parse_iscsi("has server ganesha\n")
    with pytest.raises(KeyError):
        parse_iscsi("")
