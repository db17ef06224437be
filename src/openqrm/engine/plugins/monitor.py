"""Calls the monitor hooks of started plug-ins every 10 seconds, each apart from the others.

A hook runs in a thread of its own with an event loop of its own: a slow or blocking one delays nobody, and is not
called again before it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from openqrm.domain.errors import OpenqrmError
from openqrm.domain.event import Severity
from openqrm.plugin_api.loading import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from openqrm.engine.plugins.contexts import Contexts
    from openqrm.engine.ports import Database
    from openqrm.plugin_api.plugin import Plugin

log = logging.getLogger(__name__)
EVERY_SECONDS = 10.0
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class TickStatus:
    """How the last tick of a plug-in's hook went."""

    seconds: float
    error: str = ""


@dataclass
class Monitor:
    """`run` as a task; cancel it to stop."""

    contexts: Contexts
    database: Database
    every: float = EVERY_SECONDS
    timeout: float = TIMEOUT_SECONDS
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    last: dict[str, TickStatus] = field(default_factory=dict)

    async def run(self) -> None:
        """Tick until cancelled."""
        try:
            while True:
                began = time.monotonic()
                try:
                    await self.tick()
                except Exception:
                    log.exception("the monitor met a bug and goes on")
                await asyncio.sleep(max(0.0, self.every - (time.monotonic() - began)))
        finally:
            for task in self._running.values():
                task.cancel()

    async def tick(self) -> None:
        """Begin one call of every hook that is not still busy; does not wait for any."""
        try:
            plugins = await asyncio.to_thread(self._plugins)
        except OpenqrmError:
            return  # the database is away: the next tick looks again
        for plugin in plugins:
            task = self._running.get(plugin.name)
            if task is None or task.done():
                self._running[plugin.name] = asyncio.create_task(self._call(plugin))

    async def finish(self) -> None:
        """Wait for all calls that have begun."""
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _plugins(self) -> list[Plugin]:
        with self.database.read() as reader:
            return [one for one in self.contexts.catalogue.started(reader) if one.hooks.monitor is not None]

    async def _call(self, plugin: Plugin) -> None:
        began = time.monotonic()
        error = ""
        try:
            await _in_own_thread(lambda: asyncio.run(self._hook(plugin)), plugin.name)
        except TimeoutError:
            error = f"not done after {self.timeout:.0f} s"
        except OpenqrmError as fault:
            error = fault.detail
        except Exception as fault:  # noqa: BLE001 - a plug-in's hook may raise anything; only its own tick fails
            error = f"{type(fault).__name__}: {fault}"
        before = self.last.get(plugin.name)
        self.last[plugin.name] = TickStatus(time.monotonic() - began, error)
        if error and (before is None or before.error != error):  # the same fault is one event, not one every 10 s
            await asyncio.to_thread(self._log_failure, plugin.name, error)

    async def _hook(self, plugin: Plugin) -> None:
        assert plugin.hooks.monitor is not None  # noqa: S101 - `_plugins` asked
        context = self.contexts.service(plugin)
        with self.database.read() as reader:
            now = reader.now
        await asyncio.wait_for(load(plugin.hooks.monitor)(context, now), self.timeout)

    def _log_failure(self, name: str, error: str) -> None:
        with contextlib.suppress(OpenqrmError), self.database.write() as writer:
            writer.event(f"monitoring by plug-in {name} failed: {error}", severity=Severity.ERROR, source=name)


async def _in_own_thread(function: Callable[[], None], name: str) -> None:
    """Like `asyncio.to_thread`, but one that blocks for ever holds no worker and does not keep us from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def work() -> None:
        error: BaseException | None = None
        try:
            function()
        except Exception as fault:  # noqa: BLE001 - handed to the caller
            error = fault
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(finish, error)

    threading.Thread(target=work, name=f"monitor-{name}", daemon=True).start()
    await done
