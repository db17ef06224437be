"""`openqrm controller run`: the controller as one process, ended in good order by SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import resource
import sys
from pathlib import Path

import uvloop

from openqrm.admin.setup import prepare
from openqrm.admin.syslog import commands_to_syslog
from openqrm.bootstrap import Controller
from openqrm.domain.errors import OpenqrmError
from openqrm.settings import load

FILES = 65_536
"""Open files a controller asks for; more would cost the programs it starts, some of which close all they might have."""


def main(argv: list[str]) -> int:
    """Run `openqrm controller ARGV`: 0 ended by a signal, 1 could not start."""
    parser = argparse.ArgumentParser(prog="openqrm controller", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="serve until a signal ends it; sets the installation up when it is new")
    run.add_argument("--config", type=Path, help="settings file (default: /etc/openqrm/openqrm.toml)")
    arguments = parser.parse_args(argv)
    try:
        settings = load(arguments.config)
        logging.basicConfig(
            level=settings.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
            stream=sys.stderr,
        )
        _allow_files()
        with commands_to_syslog(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            loop.run(Controller(prepare(settings)).serve())
    except (OSError, ValueError, OpenqrmError) as error:
        print(f"openqrm controller: {error}", file=sys.stderr)
        return 1
    return 0


def _allow_files() -> None:
    """Every machine's stream is an open file, and the usual soft limit is 1,024: take what we may have of `FILES`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    with contextlib.suppress(OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
