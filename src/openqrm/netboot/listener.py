"""The boot listener: plain HTTP for firmware and initramfs, on a port of its own.

aiohttp on asyncio's own event loop in a thread of its own: its file answers go through `sendfile(2)`, which uvloop
emulates by copying (docs/adr has the figures). It hands out nothing that lasts and nothing that is secret for long.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from openqrm.domain.errors import NotFoundError, OpenqrmError
from openqrm.domain.resource import Phase
from openqrm.netboot import files, script, tickets
from openqrm.netboot.lookup import HandoverOf, decision_for, mac_of, machine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from openqrm.domain.resource import Resource
    from openqrm.engine.ports import Database
    from openqrm.plugin_api.operation import Hooks
    from openqrm.plugin_api.records import Reader, Writer

_LOG = logging.getLogger(__name__)
_THREADS = 4
_CHUNK = 1 << 20


@dataclass(frozen=True)
class BootContext:
    """What the listener needs. `seen` is told that a machine's firmware asked for its script; it may change phases.

    `handover_of` says which machines boot a disk in place of a kernel of ours, and `handed_over` is told that one of
    them was given that script.
    """

    database: Database
    hooks: Callable[[Reader], Hooks]
    boot_dir: Path
    boot_url: str
    api_url: str
    seen: Callable[[Writer, Resource], bool] | None = None
    handover_of: HandoverOf | None = None
    handed_over: Callable[[Writer, Resource], None] | None = None
    threads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_THREADS))


def _failed(error: OpenqrmError) -> web.Response:
    headers = {"Retry-After": "5"} if error.status == 503 else None
    body = error.as_dict() | {"status": error.status, "title": error.code}
    return web.json_response(body, status=error.status, content_type="application/problem+json", headers=headers)


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except OpenqrmError as error:
        return _failed(error)


class _Handlers:
    def __init__(self, context: BootContext) -> None:
        self.context = context

    async def entry(self, request: web.Request) -> web.Response:
        del request
        return _text(script.entry(self.context.boot_url))

    async def script(self, request: web.Request) -> web.Response:
        mac = mac_of(request.match_info["mac"])
        platform = "efi" if request.query.get("platform") == "efi" else "pcbios"
        async with self.context.threads:
            return _text(await asyncio.to_thread(self._script, mac, platform, request.remote or ""))

    def _script(self, mac: str, platform: str, source: str) -> str:
        context = self.context
        with context.database.read() as reader:
            resource = machine(reader, mac)
            decision = decision_for(reader, resource, context.hooks, context.handover_of)
        if resource is not None and decision.handover is not None and context.handed_over is not None:
            if source != resource.address:  # the script has the grant's password, and whoever has it is the machine
                return script.nothing_to_boot(f"this address is not that of {resource.name}")
            with context.database.write() as writer:
                context.handed_over(writer, writer.get(type(resource), resource.id))
        elif resource is not None and resource.phase is not Phase.BOOTING and context.seen is not None:
            with context.database.write() as writer:
                context.seen(writer, writer.get(type(resource), resource.id))
        return script.boot(decision, boot_url=context.boot_url, api_url=context.api_url, mac=mac, platform=platform)

    async def ticket(self, request: web.Request) -> web.Response:
        mac = mac_of(request.match_info["mac"])
        async with self.context.threads:
            body = await asyncio.to_thread(self._ticket, mac)
        return web.Response(body=body, content_type="application/octet-stream", headers={"Cache-Control": "no-store"})

    def _ticket(self, mac: str) -> bytes:
        with self.context.database.read() as reader:  # who asks for nothing that is due makes us write nothing
            self._awaited(reader, mac)
        with self.context.database.write() as writer:
            return tickets.archive(tickets.issue(writer, self._awaited(writer, mac)))

    def _awaited(self, reader: Reader, mac: str) -> Resource:
        resource = machine(reader, mac)
        if resource is None or not decision_for(reader, resource, self.context.hooks).ticket:
            raise NotFoundError("no boot of this machine is awaited")
        tickets.check(reader, resource)
        return resource

    async def kernel_file(self, request: web.Request) -> web.FileResponse:
        names = request.match_info
        return web.FileResponse(files.kernel_file(self.context.boot_dir, names["kernel"], names["file"]), _CHUNK)

    async def loader(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(files.loader_file(self.context.boot_dir, request.match_info["file"]), _CHUNK)

    async def module(self, request: web.Request) -> web.FileResponse:
        names = request.match_info
        return web.FileResponse(files.module_file(self.context.boot_dir, names["kernel"], names["path"]), _CHUNK)


def _text(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/plain", headers={"Cache-Control": "no-store"})


def create_boot_app(context: BootContext) -> web.Application:
    """The listener's routes."""
    handlers = _Handlers(context)
    app = web.Application(middlewares=[_errors])
    app.router.add_get("/boot/ipxe", handlers.entry)
    app.router.add_get("/boot/script/{mac}", handlers.script)
    app.router.add_get("/boot/ticket/{mac}", handlers.ticket)
    app.router.add_get("/boot/loaders/{file}", handlers.loader)
    app.router.add_get("/boot/kernels/{kernel}/modules/{path:.+}", handlers.module)
    app.router.add_get("/boot/kernels/{kernel}/{file}", handlers.kernel_file)
    return app


class BootServer:
    """Runs the listener in a thread with its own event loop, so that files do not slow the API down."""

    def __init__(self, context: BootContext, host: str, port: int) -> None:
        self._context = context
        self._address = (host, port)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._runner: web.AppRunner | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """Its event loop while it runs."""
        return self._loop

    @property
    def port(self) -> int:
        """The port it listens on, also when it was asked for any (0)."""
        assert self._runner is not None  # noqa: S101  # asked of a server that was started
        return int(self._runner.addresses[0][1])

    def start(self) -> None:
        """Listen; OSError when the address is not ours or in use."""
        # Not asyncio.new_event_loop(): a policy that installs uvloop would take sendfile away.
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="boot-listener", daemon=True)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        except BaseException:
            self._end_loop()
            raise

    async def _listen(self) -> None:
        self._runner = web.AppRunner(create_boot_app(self._context), access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._address, reuse_address=True).start()
        _LOG.info("boot listener on http://%s:%s", *self._address)

    def stop(self) -> None:
        """Close the port and end the thread; transfers get a second to finish."""
        if self._loop is None or self._runner is None:
            return
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(timeout=10)
        self._end_loop()

    def _end_loop(self) -> None:
        assert self._loop is not None  # noqa: S101  # both are set together
        assert self._thread is not None  # noqa: S101
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()
        self._loop = None
