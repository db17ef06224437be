"""The same with UEFI firmware: its own PXE, our boot loader, a script."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from openqrm.admin.lab.state import LabSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from openqrm.testing.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.slow_lab, pytest.mark.timeout(600)]


def test_power_off_to_page_and_back_with_uefi(site_up: Callable[[LabSpec], Site]) -> None:
    site = site_up(LabSpec(name=f"uefi-{os.getpid()}", nodes=1, firmware="uefi", api_port=0))
    site.power("on")
    (node,) = site.idle()
    assert node["firmware"] == "uefi"
    site.make("web")
    site("appliance", "start", "web")
    assert site.page(node["address"])["host"] == "web"
    site("appliance", "stop", "web")
    (again,) = site.idle()
    assert again["boot_id"] != node["boot_id"]
    site.nothing_left()
    site.lab.down()
