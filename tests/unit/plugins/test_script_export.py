"""Exports made of one script: what the script says, and which paths are a pool's."""

from __future__ import annotations

import pytest

from openqrm.plugin_api.drivers import Grant
from openqrm.plugin_api.script_export import ExportFacts, parse, within


@pytest.mark.parametrize(
    ("path", "place", "inside"),
    [
        ("/home/someone/disk.img", "", True),
        ("/srv/images/web.img", "/srv/images", True),
        ("/srv/images/web.img", "/srv/images/", True),
        ("/srv/images-of-others/web.img", "/srv/images", False),
        ("/mnt/srv/images/web.img", "/srv/images", False),
        ("/dev/vg0/web", "vg0/block/pool", True),
        ("/dev/vg01/web", "vg0/block/pool", False),
        ("/dev/mapper/vg0-web", "vg0/block/pool", True),
        ("/dev/mapper/vg--san-web", "vg-san", True),
        ("/dev/mapper/vg0--san-web", "vg0", False),
        ("/dev/zvol/tank/images/web", "tank/images", True),
        ("/dev/zvol/tank/others/web", "tank/images", False),
        ("/tank/web", "tank/images", True),
    ],
)
def test_what_lies_in_a_pool(path: str, place: str, inside: bool) -> None:
    assert within(path, place) is inside


def test_what_the_script_says() -> None:
    said = "has tls\nhas interface eth1\ngrant volume-7 192.0.2.7 3 /srv/a b.img\nother any /dev/vg0/x\n"
    grants = (Grant("volume-7", "192.0.2.7", 3, "/srv/a b.img"), Grant("", "any", -1, "/dev/vg0/x"))
    assert parse(said) == ExportFacts({"tls": "", "interface": "eth1"}, grants)


def test_what_it_must_not_say() -> None:
    with pytest.raises(ValueError, match="none of: has, grant, other"):
        parse("interface eth1\n")
