"""`openqrm controller run`: the controller as one process, ended in good order by SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

import uvloop

from openqrm.admin.setup import prepare
from openqrm.admin.syslog import commands_to_syslog
from openqrm.bootstrap import Controller
from openqrm.domain.errors import OpenqrmError
from openqrm.settings import load


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
        with commands_to_syslog(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            loop.run(Controller(prepare(settings)).serve())
    except (OSError, ValueError, OpenqrmError) as error:
        print(f"openqrm controller: {error}", file=sys.stderr)
        return 1
    return 0
