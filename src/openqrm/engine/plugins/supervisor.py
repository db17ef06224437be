"""Keeps the services of started plug-ins running: prepared, started, watched, restarted with backoff, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import OpenqrmError
from openqrm.domain.event import Severity
from openqrm.domain.plugin_state import PluginState
from openqrm.engine.plugins.process import Child, Log, end_leftover, spawn
from openqrm.plugin_api.loading import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from openqrm.engine.plugins.contexts import Contexts
    from openqrm.engine.ports import Database
    from openqrm.plugin_api.calls import ServiceContext
    from openqrm.plugin_api.plugin import Plugin, Service, ServiceCommand

log = logging.getLogger(__name__)
POLL_SECONDS = 2.0
"""How often the wanted services are looked up when no commit told."""
PREPARE_SECONDS = 60.0
READY_SECONDS = 60.0
SETTLE_SECONDS = 0.3
"""A service that cannot say when it is ready, and did not end for this long, counts as running."""
FIRST_BACKOFF, LAST_BACKOFF = 1.0, 60.0
STABLE_SECONDS = 60.0
"""A service that ran this long starts again without waiting when it ends."""
STATUS_FILE = "services.json"


class ServiceState(StrEnum):
    """Where a service is."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    STOPPED = "stopped"


@dataclass(frozen=True)
class ServiceStatus:
    """A service as the API and doctor show it. `since` is in Unix seconds."""

    plugin: str
    service: str
    state: ServiceState
    since: float
    pid: int | None = None
    restarts: int = 0
    error: str = ""
    remedy: str = ""
    log: str = ""


@dataclass
class _Watched:
    """A service that is wanted."""

    plugin: Plugin
    service: Service
    settings: dict[str, Any]
    status: ServiceStatus
    task: asyncio.Task[None] | None = None
    child: Child | None = None


@dataclass
class Supervisor:
    """`run` as a task; cancel it to stop all services in good order."""

    contexts: Contexts
    database: Database
    poll_seconds: float = POLL_SECONDS
    first_backoff: float = FIRST_BACKOFF
    _watched: dict[tuple[str, str], _Watched] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def notify(self) -> None:
        """Plug-in states may have changed: look now. To be called in the event loop's thread."""
        self._changed.set()

    def status(self) -> tuple[ServiceStatus, ...]:
        """Every wanted service."""
        return tuple(one.status for one in self._watched.values())

    async def run(self) -> None:
        """Supervise until cancelled."""
        self._write_status()
        try:
            while True:
                try:
                    await self._follow()
                except Exception:
                    log.exception("the supervisor of services met a bug and goes on")
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), self.poll_seconds)
        finally:
            await asyncio.shield(self._stop(list(self._watched)))

    async def _follow(self) -> None:
        """Start what is wanted and does not run; stop what runs and is not wanted, or has other settings now."""
        try:
            wanted = await asyncio.to_thread(self._wanted)
        except OpenqrmError:
            return  # the database is away: what runs goes on
        gone = [
            key
            for key, one in self._watched.items()
            if key not in wanted or wanted[key].settings != one.settings or (one.task and one.task.done())
        ]
        await self._stop(gone)
        for key, one in wanted.items():
            if key not in self._watched:
                self._watched[key] = one
                one.task = asyncio.create_task(self._keep(one))

    def _wanted(self) -> dict[tuple[str, str], _Watched]:
        found: dict[tuple[str, str], _Watched] = {}
        with self.database.read() as reader:
            rows = {row.name: row for row in reader.find(PluginState)}
            for plugin in self.contexts.catalogue.started(reader):
                settings = rows[
                    plugin.name
                ].settings  # as stored: one plug-in's wrong settings are not the others' matter
                for service in plugin.services:
                    output = self.contexts.directory(plugin.name) / f"{service.name}.log"
                    status = ServiceStatus(
                        plugin.name, service.name, ServiceState.STARTING, time.time(), log=str(output)
                    )
                    found[plugin.name, service.name] = _Watched(plugin, service, settings, status)
        return found

    async def _stop(self, keys: list[tuple[str, str]]) -> None:
        """Stop services, those of dependent plug-ins first."""
        for key in reversed(keys):
            one = self._watched.pop(key)
            if one.task is not None:
                one.task.cancel()
                await asyncio.gather(one.task, return_exceptions=True)
        if keys:
            self._write_status()

    async def _keep(self, one: _Watched) -> None:
        """Start a service again whenever it ends."""
        backoff = self.first_backoff
        while True:
            began = time.monotonic()
            error, remedy = await self._once(one)
            if time.monotonic() - began > STABLE_SECONDS:
                backoff = self.first_backoff
            restarts = one.status.restarts + 1
            self._note(one, ServiceState.WAITING, restarts=restarts, error=error, remedy=remedy)
            await asyncio.to_thread(self._log_failure, one, backoff)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, LAST_BACKOFF)

    async def _once(self, one: _Watched) -> tuple[str, str]:
        """One life of a service; why it ended, and what helps."""
        self._note(one, ServiceState.STARTING)
        try:
            context = await asyncio.to_thread(self.contexts.service, one.plugin)
            record = context.directory / f"{one.service.name}.process"
            await end_leftover(record)
            command: ServiceCommand = await asyncio.wait_for(load(one.service.prepare)(context), PREPARE_SECONDS)
            one.child = await spawn(command, record, Log(context.directory / f"{one.service.name}.log"))
            return await self._live(one, one.child, context)
        except OpenqrmError as error:
            return error.detail, error.remedy or ""
        except Exception as error:  # noqa: BLE001 - a plug-in's function may raise anything; only its service suffers
            return f"{type(error).__name__}: {error}", ""
        finally:
            if one.child is not None:
                await asyncio.shield(one.child.stop())
                one.child = None

    async def _live(self, one: _Watched, child: Child, context: ServiceContext) -> tuple[str, str]:
        """Wait until it is ready, then until it ends."""
        waiting = asyncio.create_task(child.wait())
        try:
            readiness = asyncio.create_task(_readiness(one.service, context))
            await asyncio.wait({waiting, readiness}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                await readiness
            readiness.cancel()
            await asyncio.gather(readiness, return_exceptions=True)
            if waiting.done():
                return _ended(child, await waiting)
            self._note(one, ServiceState.RUNNING, pid=child.pid)
            return _ended(child, await waiting)
        finally:
            waiting.cancel()

    def _note(self, one: _Watched, state: ServiceState, **changes: Any) -> None:
        values = asdict(one.status) | {"pid": None, "since": time.time()} | changes | {"state": state}
        one.status = ServiceStatus(**values)
        self._write_status()

    def _write_status(self) -> None:
        """For `openqrm doctor`, which is another process."""
        try:
            path: Path = self.contexts.directory("core").parent / STATUS_FILE
            new = path.with_suffix(".new")
            new.write_text(json.dumps([asdict(one) for one in self.status()], indent=1), encoding="utf-8")
            new.replace(path)
        except OSError as error:  # a full disk must not end the services that run
            log.warning("the status of services cannot be written: %s", error)

    def _log_failure(self, one: _Watched, seconds: float) -> None:
        status = one.status
        who = f"service {status.service} of plug-in {status.plugin}"
        text = f"{who} failed; started again in {seconds:.0f} s: {status.error}"
        with contextlib.suppress(OpenqrmError), self.database.write() as writer:
            writer.event(text[:10_000], severity=Severity.ERROR, source=status.plugin, remedy=status.remedy)


async def _readiness(service: Service, context: ServiceContext) -> None:
    """Until a service is ready by its own word, or, when it has none, did not end at once."""
    if service.ready is None:
        await asyncio.sleep(SETTLE_SECONDS)
    else:
        await asyncio.wait_for(load(service.ready)(context), READY_SECONDS)


def _ended(child: Child, status: int) -> tuple[str, str]:
    said = "\n".join(child.log.last)
    return f"it ended with status {status}: {said}", f"see {child.log.path}"


def notifier(supervisor: Supervisor, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """A function for other threads, such as a database's commit listener."""
    return lambda: _call_soon(loop, supervisor.notify)


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: we are ending
        loop.call_soon_threadsafe(function)
