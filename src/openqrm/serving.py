"""How the controller serves HTTP: both APIs on one port, over TLS or a Unix socket, until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import uvicorn

from openqrm.admin import certificates

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from starlette.types import ASGIApp, Receive, Scope
    from starlette.types import Send as AsgiSend

    from openqrm.settings import Settings

log = logging.getLogger(__name__)
NODE_PREFIX = "/node/v1"
_RENEW_SECONDS = 86_400
_DRAIN_SECONDS = 3
"""How long open requests may go on when the controller ends."""


class Server(uvicorn.Server):
    """Signals are the controller's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


class Split:
    """Machines' requests go to the node API, everything else to the public one."""

    def __init__(self, public: ASGIApp, node: ASGIApp) -> None:
        self.public = public
        self.node = node

    async def __call__(self, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        path: str = scope.get("path", "")
        if path.startswith(f"{NODE_PREFIX}/"):
            inner = {**scope, "path": path[len(NODE_PREFIX) :], "root_path": ""}
            await self.node(inner, receive, send)
        else:
            await self.public(scope, receive, send)


async def serving(server: Server, stack: contextlib.AsyncExitStack) -> asyncio.Task[None]:
    """Start a server and wait until it listens; its task. OSError when it cannot."""
    task = asyncio.create_task(server.serve())
    while not server.started:
        if task.done():
            await task
            raise OSError(f"cannot listen on {server.config.uds or server.config.port}")
        await asyncio.sleep(0.01)

    async def end() -> None:
        server.should_exit = True
        await task

    stack.push_async_callback(end)
    return task


def servers(settings: Settings, app: ASGIApp) -> list[Server]:
    """Where the settings say."""
    common: dict[str, Any] = {
        "log_config": None,
        "access_log": False,
        "lifespan": "off",
        "timeout_graceful_shutdown": _DRAIN_SECONDS,
        "timeout_keep_alive": 75,
        "server_header": False,
    }
    if settings.protocol == "https":
        common |= certificates.uvicorn_options(settings)
    configs = [uvicorn.Config(app, host=settings.address, port=settings.port, **common)]
    if settings.socket is not None:
        configs.append(uvicorn.Config(app, uds=str(settings.socket), **common))
    return [Server(config) for config in configs]


async def renew_certificate(settings: Settings, servers: Sequence[Server]) -> None:
    """Once a day; connections that are open go on with the old one."""
    while True:
        await asyncio.sleep(_RENEW_SECONDS)
        for context in (server.config.ssl for server in servers):
            if context is None:
                continue
            try:
                await asyncio.to_thread(certificates.renew, settings, context)
            except Exception:
                log.exception("the server's certificate could not be renewed")
