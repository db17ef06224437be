"""Machines whose root is a block device over NBD: started, stopped, and running on while their server is away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openqrm.testing.block_roots import image_on, life_cycle, outlives_an_outage

if TYPE_CHECKING:
    from openqrm.testing.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


def test_started_stopped_and_the_same_one_on_another_machine(site: Site) -> None:
    with image_on(site, "nbd-storage") as image:
        life_cycle(site, image)


@pytest.mark.slow_lab
def test_a_server_that_dies_is_a_stall_and_no_error(site: Site) -> None:
    with image_on(site, "nbd-storage") as image:
        outlives_an_outage(site, image, "nbdkit")
