"""Runs the case files of this folder, and what cases cannot say: where a pool is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openqrm.plugins.storage.file.plugin import PLUGIN as FILE
from openqrm.plugins.storage.iscsi.facts import parse_iscsi, within
from openqrm.plugins.storage.iscsi.plugin import PLUGIN
from openqrm.testing.cases import check_case, load_cases

CASES = load_cases(Path(__file__).parent)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_case(case: dict[str, Any]) -> None:
    check_case(PLUGIN, case, others=(FILE,))


@pytest.mark.parametrize(
    ("path", "place", "inside"),
    [
        ("/srv/images/a.img", "/srv/images", True),
        ("/srv/images2/a.img", "/srv/images", False),
        ("/dev/vg0/web", "vg0", True),
        ("/dev/mapper/vg0-web", "vg0", True),
        ("/dev/mapper/my--vg-web", "my-vg", True),
        ("/dev/mapper/my-vg-web", "my-vg", False),
        ("/dev/zvol/tank/images/web", "tank/images", True),
        ("/dev/sda", "vg0", False),
    ],
)
def test_what_lies_in_a_pool(path: str, place: str, *, inside: bool) -> None:
    assert within(path, place) is inside


def test_something_else_than_the_facts_is_refused() -> None:
    with pytest.raises(ValueError, match="no iSCSI server ganesha"):
        parse_iscsi("server ganesha\n")
    with pytest.raises(KeyError):
        parse_iscsi("")
