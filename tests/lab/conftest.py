"""One booted datacentre for the whole session: two idle machines, a golden volume. Every test leaves it as it was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from openqrm.admin.lab.datacentre import down
from openqrm.admin.lab.state import LabSpec
from openqrm.testing import needs, share
from openqrm.testing.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


HERE = Path(__file__).parent
REUSE = "OPENQRM_LAB_REUSE"
"""A developer's: the directory of a datacentre that an earlier run left up, or that this one makes and leaves up."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests that are not in this commit's share."""
    slow = [
        item
        for item in items
        if item.path.is_relative_to(HERE)
        and item.get_closest_marker("slow_lab") is not None
        and not share.named(config.args, item.path, config.invocation_params.dir)
    ]
    run = share.of_commit(share.head(), (item.nodeid for item in slow))
    for item in slow:
        if item.nodeid not in run:
            item.add_marker(pytest.mark.skip(reason=share.reason()))


@pytest.fixture(scope="session")
def bios() -> None:
    """For a test that brings a lab up by itself."""
    needs.lab("bios")


@pytest.fixture(scope="session")
def site_up() -> Iterator[Callable[[LabSpec], Site]]:
    """Bring up datacentres of one's own; all are ended with the session."""
    made: list[tuple[Path, str]] = []

    def up(spec: LabSpec) -> Site:
        needs.lab(spec.firmware)
        directory = Path("/tmp") / f"openqrm-{spec.name}"  # short: Unix sockets have short paths
        down(directory, spec.name)
        made.append((directory, spec.name))
        return Site.up(spec, directory)

    yield up
    for directory, name in made:
        down(directory, name)


@pytest.fixture(scope="session")
def datacentre(site_up: Callable[[LabSpec], Site]) -> Site:
    """The datacentre of this session, with two machines taken from power-off to idle."""
    place = os.environ.get(REUSE)
    if place and (Path(place) / "lab.json").exists():
        there = Site.open(Path(place))
        there.as_found()
        return there
    spec = LabSpec(name=f"test-{os.getpid()}", nodes=2, api_port=0)
    site = Site.up(spec, Path(place)) if place else site_up(spec)
    site.power("on")
    site.idle()
    return site


@pytest.fixture
def site(datacentre: Site) -> Iterator[Site]:
    """The session's datacentre with both machines idle; put right after the test."""
    yield datacentre
    datacentre.as_found()
