"""Things break in the middle: controllers, machines, the storage host. Afterwards everything is consistent."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.admin.lab.datacentre import CONTROLLER
from openqrm.admin.lab.process import send
from openqrm.testing import share
from openqrm.testing.site import SiteError, eventually

if TYPE_CHECKING:
    from openqrm.testing.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

MOMENTS = (0.05, 0.3, 1.0, 2.0, 5.0)
"""Seconds after the call at which the controller is killed, in a start and in a stop: ten kills."""
ALWAYS = MOMENTS[share.number(share.head(), "kill") % len(MOMENTS)]


def kill_during(site: Site, verb: str, seconds: float) -> dict[str, Any]:
    """Ask for a start or stop of `web`, kill the controller so much later, start it again; the operation's end."""
    asked = site("appliance", verb, "web", "--no-wait")
    time.sleep(seconds)
    site.lab.stop_controller(kill=True)
    site.lab.start_controller()
    ended = site.operation(asked["id"], seconds=240)
    print(f"killed {seconds} s into {verb}: {ended['status']}")
    return ended


def consistent(site: Site, first: dict[str, Any]) -> str:
    """The appliance's phase, after everything that must be true of it was looked up."""
    appliance = site.appliance("web")
    if appliance["phase"] == "running":
        assert site.page(first["address"])["host"] == "web"
        assert site.resource(first["id"])["phase"] == "active"
        assert [lease["appliance_id"] for lease in site.leases()] == [appliance["id"]]
        assert f"Clients = {first['address']};" in site.grants()
    else:
        assert appliance["phase"] == "stopped", site.state()
        site.nothing_left()
        site.idle()
    return str(appliance["phase"])


@pytest.mark.parametrize(
    "seconds", [pytest.param(each, marks=() if each == ALWAYS else pytest.mark.slow_lab) for each in MOMENTS]
)
def test_a_killed_controller_completes_or_undoes_what_it_was_doing(site: Site, seconds: float) -> None:
    first, _ = site.idle()
    site.make("web", "--resource-id", first["name"])
    started = kill_during(site, "start", seconds)
    assert started["status"] in ("done", "failed")
    if consistent(site, first) == "stopped":
        site("appliance", "start", "web")
    stopped = kill_during(site, "stop", seconds)
    assert stopped["status"] == "done", "a stop goes forward"
    assert consistent(site, first) == "stopped"


@pytest.mark.slow_lab
def test_a_controller_that_was_paused_in_the_middle_does_no_harm(site: Site) -> None:
    first, second = site.idle()
    site.make("web", "--resource-id", first["name"])
    asked = site("appliance", "start", "web", "--no-wait")
    record = site.lab.running(CONTROLLER)
    assert record is not None
    time.sleep(0.5)
    send(record, signal.SIGSTOP)
    try:
        time.sleep(30)
    finally:
        send(record, signal.SIGCONT)
    assert site.operation(asked["id"])["status"] == "done", site.state()
    assert consistent(site, first) == "running"
    assert site.resource(second["id"])["phase"] == "idle"
    site("appliance", "stop", "web")


@pytest.mark.slow_lab
def test_a_storage_host_that_is_down_fails_a_start_and_stalls_what_runs(site: Site) -> None:
    first, second = site.idle()
    site.make("web", "--resource-id", first["name"])
    site.make("late", "--resource-id", second["name"])
    site("appliance", "start", "web")
    before = site.page(first["address"])
    asked = int(site.page(first["address"], "cgi-bin/count")["requests"])

    site.power("off", "storage")
    began = time.monotonic()
    refused = site.refusal("appliance", "start", "late")
    print(f"refused after {time.monotonic() - began:.0f} s: {refused}")
    assert refused.code == 1
    assert "storage1" in refused.problem["error"]["detail"]
    assert site.appliance("late")["phase"] == "stopped"
    assert site.resource(second["id"])["phase"] == "idle"
    assert [lease["resource_id"] for lease in site.leases()] == [first["id"]]
    time.sleep(max(0.0, 40 - (time.monotonic() - began)))
    assert site.appliance("web")["phase"] == "running"

    site.power("on", "storage")
    assert site.page(first["address"], seconds=120) == before
    assert int(site.page(first["address"], "cgi-bin/count", seconds=120)["requests"]) > asked
    site("appliance", "start", "late")
    assert site.page(second["address"])["host"] == "late"


@pytest.mark.slow_lab
def test_a_machine_that_is_reset_comes_back_with_its_appliance(site: Site) -> None:
    first, _ = site.idle()
    site.make("web", "--resource-id", first["name"])
    site("appliance", "start", "web")
    running = site.resource(first["id"])
    seen, before = site.page(first["address"]), site.last_event()
    site.power("reset", site.node_of(first))

    def back() -> bool:
        now = site.resource(first["id"])
        return bool(now["phase"] == "active" and now["boot_id"] != running["boot_id"])

    eventually(back, 180, "the machine active after another boot", site.state)
    assert site.page(first["address"]) == {**seen, "boots": "2"}
    assert site.events("restarted and is deployed with web again", after=before)
    site("appliance", "stop", "web")
    site.nothing_left()


@pytest.mark.slow_lab
def test_a_machine_that_lost_its_power_is_let_go_by_proof(site: Site) -> None:
    first, _ = site.idle()
    site.make("web", "--resource-id", first["name"])
    site("appliance", "start", "web")
    site.power("off", site.node_of(first))
    began = time.monotonic()
    site("appliance", "stop", "web")
    print(f"stopped without an answer of its machine after {time.monotonic() - began:.0f} s")
    site.nothing_left()
    with pytest.raises(SiteError):
        site.idle(site.node_of(first), seconds=1)
