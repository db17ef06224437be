"""Two appliances, one machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from openqrm.testing.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.timeout(420)]


def test_two_appliances_ask_for_the_last_idle_machine_at_once(site: Site) -> None:
    first, _ = site.idle()
    site("resource", "update", first["name"], "--group", "last")
    names = ("one", "two")
    for name in names:
        site.make(name, "--requirements", '{"group": "last"}')
    with (
        site.calling("appliance", "start", names[0], "--no-wait") as left,
        site.calling("appliance", "start", names[1], "--no-wait") as right,
    ):
        said = {name: (call.communicate(), call.returncode) for name, call in zip(names, (left, right), strict=True)}
    codes = {name: code for name, (_, code) in said.items()}
    assert sorted(codes.values()) == [0, 4], said
    winner = next(name for name, code in codes.items() if code == 0)
    loser = next(name for name, code in codes.items() if code == 4)
    problem = json.loads(said[loser][0][1])
    assert problem["status"] == 409
    assert f"no idle resource for appliance {loser}" in problem["detail"]
    assert problem["remedy"]

    queued = site("appliance", "start", loser, "--queue", "--no-wait")
    site.operation(json.loads(said[winner][0][0])["id"])
    assert site.page(first["address"])["host"] == winner
    assert site("operation", "show", str(queued["id"]))["status"] not in ("done", "failed")
    waiting = site.appliance(loser)
    assert (waiting["phase"], waiting["running_on"]) == ("starting", None)
    assert len(site.leases()) == 1

    site("appliance", "stop", winner)
    assert site.operation(queued["id"])["status"] == "done"
    assert site.page(first["address"])["host"] == loser
    site("appliance", "stop", loser)
    site("resource", "update", first["name"], "--group", "")
