"""The supervisor with real processes: plug-ins come from modules written for each test."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel

from openqrm.domain.event import Event
from openqrm.domain.plugin_state import PluginPhase, PluginState
from openqrm.engine.plugins import catalogue as catalogues
from openqrm.engine.plugins import process
from openqrm.engine.plugins.contexts import Contexts
from openqrm.engine.plugins.process import Log, end_leftover, spawn
from openqrm.engine.plugins.supervisor import ServiceState, ServiceStatus, Supervisor
from openqrm.plugin_api.loading import load
from openqrm.plugin_api.plugin import Family, Plugin, Service, ServiceCommand
from openqrm.testing.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

MODULE = """
import sys
from pathlib import Path
from openqrm.domain.errors import MissingDependencyError
from openqrm.plugin_api.plugin import ServiceCommand

async def prepare(context):
    with (context.directory / "prepared").open("a") as file:
        file.write(f"{context.settings['word']}\\n")
    if context.settings["word"] == "absent":
        raise MissingDependencyError("the server is not installed", remedy="apt-get install server")
    return ServiceCommand((sys.executable, "-c", context.settings["code"]), {"WORD": context.settings["word"]})

async def ready(context):
    (context.directory / "ready").touch()
"""
SLEEP = "import time, os; print('I am', os.environ['WORD'], flush=True); time.sleep(1000)"


class Settings(BaseModel):
    """Settings of the plug-in under test."""

    word: str = "one"
    code: str = SLEEP


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    name = f"supervised_{os.getpid()}_{time.monotonic_ns()}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    load.cache_clear()
    return Plugin(
        name="one",
        family=Family.OTHER,
        title="One",
        summary="A plug-in with a service",
        module=name,
        services=(Service("server", f"{name}:prepare", f"{name}:ready"),),
        settings=Settings,
    )


class Bench:
    """A supervisor that runs."""

    def __init__(self, plugin: Plugin, directory: Path) -> None:
        self.database = MemoryDatabase()
        catalogue = catalogues.of([plugin])
        self.contexts = Contexts(catalogue, self.database.read, {"state_dir": str(directory)})
        self.supervisor = Supervisor(self.contexts, self.database, poll_seconds=0.05, first_backoff=0.1)
        self.directory = directory / "plugins" / plugin.name
        with self.database.write() as writer:
            catalogues.register(writer, catalogue)
        self.task = asyncio.create_task(self.supervisor.run())

    def set(self, **changes: object) -> None:
        with self.database.write() as writer:
            row = writer.one(PluginState, name="one")
            assert row is not None
            writer.update(row, **changes)

    @property
    def status(self) -> ServiceStatus | None:
        return next(iter(self.supervisor.status()), None)

    async def until(self, true: Callable[[], object]) -> None:
        for _ in range(400):
            if true():
                return
            await asyncio.sleep(0.02)
        pytest.fail(f"did not come true; {self.status}")

    async def running(self, other_than: int | None = None) -> int:
        await self.until(lambda: self.status and self.status.pid not in (None, other_than))
        assert self.status is not None
        assert self.status.pid is not None
        return self.status.pid

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def bench(plugin: Plugin, tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(plugin, tmp_path)
    yield made
    await made.end()


def alive(pid: int) -> bool:
    return process._started(pid) is not None


async def test_started_runs_stopped_ends(bench: Bench) -> None:
    await asyncio.sleep(0.2)
    assert bench.status is None, "a disabled plug-in has no services"
    bench.set(state=PluginPhase.STARTED)
    pid = await bench.running()
    assert (bench.directory / "ready").exists()
    await bench.until(lambda: "I am one" in (bench.directory / "server.log").read_text())
    written = json.loads((bench.directory.parent / "services.json").read_text())
    assert [(one["service"], one["state"], one["pid"]) for one in written] == [("server", "running", pid)]
    bench.set(state=PluginPhase.ENABLED)
    await bench.until(lambda: bench.status is None and not alive(pid))
    await bench.until(lambda: json.loads((bench.directory.parent / "services.json").read_text()) == [])


async def test_one_that_was_killed_is_prepared_and_started_again_and_an_event_says_so(bench: Bench) -> None:
    bench.set(state=PluginPhase.STARTED)
    for restarts in (1, 2):
        pid = await bench.running()
        os.kill(pid, signal.SIGKILL)
        await bench.running(other_than=pid)
        assert bench.status is not None
        assert bench.status.restarts == restarts
    assert (bench.directory / "prepared").read_text().count("one\n") == 3
    with bench.database.read() as reader:
        texts = [event.text for event in reader.find(Event, source="one")]
    assert len(texts) == 2
    assert "ended with status -9" in texts[0]


async def test_what_a_failing_service_said_is_in_status_and_event_and_it_is_tried_less_and_less(bench: Bench) -> None:
    bench.set(settings={"code": "import sys; sys.exit('port 67 is in use')"}, state=PluginPhase.STARTED)
    began = time.monotonic()
    await bench.until(lambda: bench.status and bench.status.restarts >= 3)
    assert time.monotonic() - began > 0.1 + 0.2, "0.1 s, then 0.2 s of backoff"
    await bench.until(lambda: bench.status and bench.status.state is ServiceState.WAITING)
    assert bench.status is not None
    assert "status 1" in bench.status.error
    assert "port 67 is in use" in bench.status.error
    bench.set(settings={})
    await bench.running()


async def test_a_missing_dependency_is_told_with_its_remedy(bench: Bench) -> None:
    bench.set(settings={"word": "absent"}, state=PluginPhase.STARTED)
    await bench.until(lambda: bench.status and bench.status.error)
    assert bench.status is not None
    assert (bench.status.error, bench.status.remedy) == ("the server is not installed", "apt-get install server")


async def test_settings_that_no_longer_fit_are_told_and_mended_ones_used(bench: Bench) -> None:
    bench.set(settings={"word": ["not", "a", "text"]}, state=PluginPhase.STARTED)
    await bench.until(lambda: bench.status and "settings of plug-in one: word" in bench.status.error)
    bench.set(settings={})
    await bench.running()


async def test_a_full_disk_ends_no_service(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import time\nfor n in range(10**6): print('x' * 1000, n, flush=True); time.sleep(0.001)"
    bench.set(settings={"code": code}, state=PluginPhase.STARTED)
    pid = await bench.running()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    child = bench.supervisor._watched["one", "server"].child
    assert child is not None
    last = child.log.last
    await bench.until(lambda: last and last[-1].count(" ") == 1)
    monkeypatch.setattr(Path, "open", full)
    monkeypatch.setattr(Path, "write_text", full)
    number = int(last[-1].rpartition(" ")[2]) + 500
    bench.supervisor._write_status()
    # By then it printed more than a pipe holds. A line may have been read in two parts.
    await bench.until(lambda: any(int(line.rpartition(" ")[2] or 0) >= number for line in last if " " in line))
    monkeypatch.undo()
    assert alive(pid)
    assert not bench.task.done()


async def test_new_settings_start_it_again(bench: Bench) -> None:
    bench.set(state=PluginPhase.STARTED)
    pid = await bench.running()
    bench.set(settings={"word": "two"})
    await bench.running(other_than=pid)
    await bench.until(lambda: "I am two" in (bench.directory / "server.log").read_text())
    assert not alive(pid)


async def test_ending_the_supervisor_ends_services_with_what_they_forked(bench: Bench) -> None:
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '1000']).pid, flush=True); time.sleep(1000)"
    bench.set(settings={"code": code}, state=PluginPhase.STARTED)
    pid = await bench.running()
    log = bench.directory / "server.log"
    await bench.until(lambda: len(log.read_text().splitlines()) == 2)
    forked = int(log.read_text().split()[-1])
    assert alive(forked)
    await bench.end()
    await bench.until(lambda: not alive(pid) and not alive(forked))


async def test_one_that_ignores_the_polite_signal_is_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_SECONDS", 0.3)
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(1000)"
    bench.set(settings={"code": code}, state=PluginPhase.STARTED)
    pid = await bench.running()
    await bench.until(lambda: (bench.directory / "server.log").read_text().endswith("deaf\n"))
    bench.set(state=PluginPhase.ENABLED)
    await bench.until(lambda: not alive(pid))


CONTROLLER = """
import asyncio, sys
from pathlib import Path
from openqrm.engine.plugins.process import Log, spawn
from openqrm.plugin_api.plugin import ServiceCommand
async def main(directory):
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '1000']).pid, flush=True); time.sleep(1000)"
    child = await spawn(ServiceCommand((sys.executable, "-c", code)), directory / "record", Log(directory / "log"))
    print(child.pid, flush=True)
    await asyncio.sleep(1000)
asyncio.run(main(Path(sys.argv[1])))
"""


async def test_a_controller_killed_with_9_leaves_no_service_and_the_next_one_ends_what_it_forked(
    tmp_path: Path,
) -> None:
    controller = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(CONTROLLER), str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert controller.stdout is not None
    service = int(await controller.stdout.readline())
    log = tmp_path / "log"
    for _ in range(200):
        if len(log.read_text().splitlines()) == 2:
            break
        await asyncio.sleep(0.02)
    forked = int(log.read_text().splitlines()[-1])
    controller.kill()
    await controller.wait()
    for _ in range(100):
        if not alive(service):
            break
        await asyncio.sleep(0.02)
    assert not alive(service)
    assert alive(forked), "what a service forks is not tied to the controller"
    assert await end_leftover(tmp_path / "record")
    await asyncio.sleep(0.1)
    assert not alive(forked)
    assert not await end_leftover(tmp_path / "record")


async def test_a_recycled_process_id_is_left_alone(tmp_path: Path) -> None:
    child = await spawn(ServiceCommand(("sleep", "1000")), tmp_path / "record", Log(tmp_path / "log"))
    before = process.recorded(tmp_path / "record")
    assert before is not None
    assert before.alive()
    for stale in (replace(before, started=before.started - 1), replace(before, boot="another boot")):
        body = {"pid": stale.pid, "started": stale.started, "boot": stale.boot}
        (tmp_path / "stale").write_text(json.dumps(body))
        assert not await end_leftover(tmp_path / "stale")
        assert alive(child.pid)
    await child.stop()


def test_logs_are_rotated_and_the_oldest_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LOG_BYTES", 100)
    log = Log(tmp_path / "log")
    for number in range(60):
        log.write(f"line {number:02}\n".encode() * 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2", "log.3", "log.4"]
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    assert list(log.last)[-1] == "line 59"
