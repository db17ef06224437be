"""Runs the case files of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from openqrm.plugins.storage.local_server.plugin import PLUGIN, PartitionSettings
from openqrm.testing.cases import check_case, load_cases

CASES = load_cases(Path(__file__).parent)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_case(case: dict[str, Any]) -> None:
    check_case(PLUGIN, case)


@pytest.mark.parametrize(
    "device", ["/dev/../etc", "vda1", "/dev/disk/by-id/x", "UUID=", "LABEL=a b", "/dev/vda1;x", "X=1"]
)
def test_what_is_no_partition_is_refused(device: str) -> None:
    with pytest.raises(ValidationError, match="device"):
        PartitionSettings(device=device)
