"""Runs the case files of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openqrm.plugins.storage.aoe.facts import parse_export
from openqrm.plugins.storage.aoe.plugin import PLUGIN
from openqrm.plugins.storage.file.plugin import PLUGIN as FILE
from openqrm.testing.cases import check_case, load_cases

CASES = load_cases(Path(__file__).parent)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_case(case: dict[str, Any]) -> None:
    check_case(PLUGIN, case, others=(FILE,))


def test_volumes_of_a_volume_group_are_devices_below_its_name() -> None:
    said = "vblade yes\ninterface eth1\ngrant volume-7 client 3 /dev/vg0/base\nother any /dev/vg0/web\nother any /dev/vg1/web\n"
    assert [grant.location for grant in parse_export(said, "vg0/block/pool").grants] == [
        "/dev/vg0/base",
        "/dev/vg0/web",
    ]
