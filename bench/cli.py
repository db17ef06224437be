"""How fast the command line answers without a server: help, and the words a shell completes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.installation import World, running
from openqrm.admin.certificates import files

if TYPE_CHECKING:
    from collections.abc import Mapping

RUNS = 31
COMMANDS = {
    "cli_help_ms": ("--help",),
    "cli_entity_help_ms": ("appliance", "start", "--help"),
    "cli_completion_ms": ("__complete", "appliance", "st"),
}


def measured(environment: Mapping[str, str], words: tuple[str, ...]) -> float:
    """The median of many runs of the installed command, milliseconds."""
    command = [str(Path(sys.executable).parent / "openqrm"), *words]
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
        times.append((time.perf_counter() - began) * 1000)
        assert b"start" in done.stdout or b"appliance" in done.stdout, done
    return round(statistics.median(times), 1)


def run(world: World) -> dict[str, Any]:
    """Medians, by someone who has logged in, so that the server's schema is at hand."""
    own = str(world.directory)
    environment = {**os.environ, "XDG_CONFIG_HOME": own, "XDG_CACHE_HOME": own}
    with running(replace(world, url=""), lambda database: None) as site:  # noqa: ARG005  # nothing to fill in
        login = ("login", "--url", site.settings.url, "--ca", str(files(site.settings).ca), "--token-stdin")
        for words, given in ((login, site.token), (("appliance", "list"), "")):
            command = [str(Path(sys.executable).parent / "openqrm"), *words]
            subprocess.run(command, env=environment, input=given, text=True, capture_output=True, check=True)
    return {name: measured(environment, words) for name, words in COMMANDS.items()} | {"details": {"runs": RUNS}}
