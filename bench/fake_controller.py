"""`python -m bench.fake_controller --config FILE`: a whole controller whose hosts and machines are fakes.

API, pipeline, planners, journal, engine and database are the real ones. Hosts take a moment for each command; machines
obey orders through the database and send heartbeats to the health store. What hosts saw is written at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.fake_plugin import PLUGIN
from openqrm.admin.setup import Installation, prepare
from openqrm.bootstrap import Controller
from openqrm.domain.resource import Resource
from openqrm.engine.plugins import catalogue
from openqrm.operations.machine_messages import Beat
from openqrm.settings import load
from openqrm.store.health import HealthStore
from openqrm.testing.fake_host import FakeHosts
from openqrm.testing.fake_machines import FakeMachines

if TYPE_CHECKING:
    from openqrm.engine.ports import Finished

SEEN_FILE = "fake-hosts.json"
"""Below the state directory: what the hosts saw."""
COMMAND_SECONDS = 0.02
"""What a command over a kept SSH connection takes."""
BEAT_SECONDS = 5


@dataclass
class CountingHosts(FakeHosts):
    """Counts how many commands are under way at once."""

    now: int = 0
    most: int = 0
    granted: list[str] = field(default_factory=list)

    async def run(self, host: int, command: Any, **options: Any) -> Finished:
        """Run a command on a host that is as slow as a real one."""
        self.host(host).delay = COMMAND_SECONDS
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if command.argv[0] == "grant":
                self.granted.append(command.argv[1])
            return await super().run(host, command, **options)
        finally:
            self.now -= 1


class FakeController(Controller):
    """Machines obey as long as it serves."""

    def __init__(self, installation: Installation) -> None:
        self.fakes = CountingHosts()
        super().__init__(installation, hosts=self.fakes)
        self.most_operations = 0

    async def start(self, stack: AsyncExitStack) -> None:
        """Start everything, and the machines."""
        stack.callback(self._tell)
        machines = FakeMachines(self.database, threaded=True)
        await super().start(stack)
        for work in (machines.run(self.runner.ports.notifier), self._beats(), self._watch()):
            stack.push_async_callback(_ended, asyncio.create_task(work))

    async def _beats(self) -> None:
        """Fake machines are heard, else they would be taken for lost."""
        health = HealthStore.open(self.settings)
        with self.database.read() as reader:
            beats = {machine.id: Beat(uptime=1) for machine in reader.find(Resource, manual=False)}
        while True:
            await asyncio.to_thread(health.record, beats, datetime.now(UTC))
            await asyncio.sleep(BEAT_SECONDS)

    async def _watch(self) -> None:
        """How many operations are executed at once."""
        while True:
            self.most_operations = max(self.most_operations, len(self.runner.active))
            await asyncio.sleep(0.005)

    def _tell(self) -> None:
        seen = {
            "most_commands_at_once": self.fakes.most,
            "most_operations_at_once": self.most_operations,
            "granted": self.fakes.granted,
        }
        (self.settings.state_dir / SEEN_FILE).write_text(json.dumps(seen), encoding="utf-8")


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def main(argv: list[str]) -> int:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(prog="python -m bench.fake_controller", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    settings = load(parser.parse_args(argv).config)
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    installation = prepare(settings)
    known = replace(installation, catalogue=catalogue.of((*installation.catalogue.plugins, PLUGIN)))
    asyncio.run(FakeController(known).serve())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
