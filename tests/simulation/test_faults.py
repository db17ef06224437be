"""Random plans under random faults, crashes, take-overs and cancels, on virtual time. Reproduce one by its seed."""

from __future__ import annotations

import collections
import functools
import logging
import os

import pytest

from openqrm.testing.simulation import Scenario, play
from openqrm.testing.virtual import run

SEEDS = int(os.environ.get("OPENQRM_SIMULATIONS", "300"))
GROUPS = 4


@pytest.mark.parametrize("group", range(GROUPS))
def test_every_schedule_ends_well(group: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="openqrm")
    ends: collections.Counter[str] = collections.Counter()
    for seed in range(group, SEEDS, GROUPS):
        try:
            scenario: Scenario = run(functools.partial(play, seed=seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        ends.update(str(scenario.site.status(operation)) for operation in scenario.operations)
    assert {"done", "failed"} <= set(ends), f"the schedules no longer reach every end: {ends}"
