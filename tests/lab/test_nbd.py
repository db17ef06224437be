"""Machines whose root is a block device over NBD: started, stopped, and running on while their server is away."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from openqrm.testing.block_roots import image_on, life_cycle, longest_stall, start_writing, started, written

if TYPE_CHECKING:
    from openqrm.testing.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
KILL = 'for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" != nbdkit ] || kill -9 "${p#/proc/}"; done'
OUTAGE_SECONDS = 60


def test_started_stopped_and_the_same_one_on_another_machine(site: Site) -> None:
    with image_on(site, "nbd-storage") as image:
        life_cycle(site, image)


@pytest.mark.slow_lab
def test_a_server_that_dies_is_a_stall_and_no_error(site: Site) -> None:
    with image_on(site, "nbd-storage") as image:
        address = started(site, image)
        start_writing(site, address)
        site.on_storage(KILL)
        last = written(site, address, after=1)
        written(site, address, after=last + 20)
        site.lab.power("storage", "off")
        time.sleep(OUTAGE_SECONDS)
        site.lab.power("storage", "on")
        written(site, address, after=last + 40, seconds=120)
        print(f"longest stall: {longest_stall(site, address):.1f} s, of a host that was off for {OUTAGE_SECONDS} s")
        assert longest_stall(site, address) > OUTAGE_SECONDS / 2
        site("appliance", "stop", "web")
        site.nothing_left()
