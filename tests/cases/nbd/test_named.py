"""Which files another nbdkit names on its command line: also a directory, every file of which it hands out."""

from __future__ import annotations

import subprocess

import pytest

from openqrm.plugin_api.scripts import script
from openqrm.plugins.storage.nbd.driver import NbdExport


@pytest.mark.parametrize("words", [["file", "/srv/web.img"], ["file=/srv/web.img"], ["file", "dir=/srv/web.img"]])
def test_what_it_hands_out_is_seen(words: list[str]) -> None:
    text = script(NbdExport.package, "export").partition("\nanswers()")[0]
    held = subprocess.Popen(["sh", "-c", "read -r _", *words], stdin=subprocess.PIPE)
    try:
        named = subprocess.run(
            ["sh", "-c", f"{text}\nnamed {held.pid}"], capture_output=True, text=True, check=True, timeout=30
        )
        assert named.stdout.splitlines() == ["/srv/web.img"]
    finally:
        held.communicate(timeout=30)
