"""Runs the case files of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openqrm.plugins.storage.file.plugin import PLUGIN as FILE
from openqrm.plugins.storage.nbd.facts import parse_export
from openqrm.plugins.storage.nbd.plugin import PLUGIN
from openqrm.testing.cases import check_case, load_cases

CASES = load_cases(Path(__file__).parent)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_case(case: dict[str, Any]) -> None:
    check_case(PLUGIN, case, others=(FILE,))


def test_volumes_of_a_volume_group_are_devices_below_its_name() -> None:
    said = "nbdkit yes\ntls yes\ngrant volume-7 client 3 /dev/vg0/a\nother any /dev/vg0/b\nother any /dev/vg1/c\n"
    found = parse_export(said, "vg0/block/pool").grants
    assert [grant.location for grant in found] == ["/dev/vg0/a", "/dev/vg0/b"]
