"""The node API below `/node/v1`: thin adapters over `operations`. See docs/explanation/node-protocol.md."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from openqrm.api.node import wire
from openqrm.api.node.hub import Hub
from openqrm.api.node.strangers import Strangers
from openqrm.api.node.stream import StreamEndpoint
from openqrm.domain.errors import ConflictError, NotFoundError, OpenqrmError, UnauthenticatedError, UnavailableError
from openqrm.domain.resource import Resource
from openqrm.netboot import handover, tickets
from openqrm.netboot.lookup import decision_for
from openqrm.operations import deployment, disks, machine_tokens, machines, transfer_orders
from openqrm.operations.machine_report import Report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from starlette.requests import Request

    from openqrm.api.node.context import NodeContext
    from openqrm.operations.machine_tokens import Session
    from openqrm.operations.mounting import Surroundings
    from openqrm.plugin_api.records import Reader

    Handler = Callable[[Request], Awaitable[Response]]
    OrderAnswer = Callable[[Reader, Session, int, Surroundings], dict[str, str]]

MAX_REPORT = 256 * 1024
"""Bytes of a registration; a machine with a thousand disks stays below."""
_CODES = {401: "unauthenticated", 409: "conflict", 503: "unavailable"}
_TRIES = 3
"""How often a registration that lost a race for an address or name is tried."""


def _answers(handler: Handler) -> Handler:
    """Domain errors as problems; everything else is a bug and stays one."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except OpenqrmError as error:
            return wire.failed(error)

    return answer


class NodeApi:
    """The handlers, with what they share."""

    def __init__(self, context: NodeContext, hub: Hub) -> None:
        self._context = context
        self._hub = hub
        self._strangers = Strangers()
        self._around = context.around

    async def register(self, request: Request) -> Response:
        """Take a machine in."""
        report = await _report(request)
        if isinstance(report, Response):
            return report
        source = request.client.host if request.client else ""
        result = await self._hub.writing(lambda: self._register(report, source, self._hub.alive))
        if isinstance(result, machines.Contested):
            number = result.resource_id
            if await self._hub.heard_again(number):
                result = await self._hub.writing(lambda: self._second_machine(number))
            else:
                self._hub.drop(number)
                result = await self._hub.writing(lambda: self._register(report, source, lambda _: False))
        if isinstance(result, machines.Registered):
            self._hub.spoke(result.resource.id)
            if result.moved and self._context.moved is not None:
                await self._context.moved(result.resource.id)
            return wire.plain(wire.assignments(self._answer(result)))
        assert isinstance(result, machines.Refused)  # noqa: S101  # nothing is contested a second time
        return wire.problem(result.status, _CODES[result.status], result.text)

    def _register(self, report: Report, source: str, connected: Callable[[int], bool]) -> machines.Result:
        around = machines.Circumstances(connected, source, self._strangers.unheard_of, self._strangers.may_enrol)
        for _ in range(_TRIES):
            try:
                with self._context.database.write() as writer:
                    result = machines.register(writer, report, around)
                    if isinstance(result, machines.Registered) and result.new:
                        self._context.enrol(writer, result.resource.id)
            except ConflictError as error:
                reason = error
                continue
            return result
        # 503 and not 409: at that, a machine would stop for ever.
        raise UnavailableError(f"the machine cannot be registered now: {reason.detail}")

    def _second_machine(self, resource_id: int) -> machines.Result:
        with self._context.database.write() as writer:
            return machines.second_machine(writer, resource_id)

    def _answer(self, result: machines.Registered) -> dict[str, str | int]:
        place = result.place if result.place and result.place.prefix else None
        return {
            "RESOURCE_ID": result.resource.id,
            "TOKEN": result.token,
            "NAME": result.resource.name,
            "HEARTBEAT_SECONDS": self._context.heartbeat_seconds,
            "TIME": int(time.time()),
            "ADDRESS": place.address if place else "",
            "PREFIX": place.prefix if place else "",
        }

    async def deployment(self, request: Request) -> Response:
        """What the machine is to deploy."""
        token = wire.bearer(request.scope["headers"])

        def compute() -> dict[str, str]:
            with self._context.database.write() as writer:
                return deployment.assignments(writer, _known(writer, token), self._around)

        return wire.plain(wire.assignments(await self._hub.writing(compute)))

    async def transfer(self, request: Request) -> Response:
        """What the machine is to copy by an order."""
        return await self._ordered(request, transfer_orders.assignments)

    async def disks(self, request: Request) -> Response:
        """Where the machine's disks go by an order."""
        return await self._ordered(request, disks.assignments)

    async def _ordered(self, request: Request, answer: OrderAnswer) -> Response:
        token, number = wire.bearer(request.scope["headers"]), request.path_params["order"]

        def compute() -> dict[str, str]:
            with self._context.database.read() as reader:
                return answer(reader, _known(reader, token), number, self._around)

        return wire.plain(wire.assignments(await self._hub.blocking(compute)))

    async def boot(self, request: Request) -> Response:
        """What the machine boots next, for one that leaves by kexec."""
        token = wire.bearer(request.scope["headers"])

        def compute() -> dict[str, str]:
            context = self._context
            with context.database.read() as reader:
                resource = _present(reader, token)
                decision = decision_for(reader, resource, context.hooks)
            urls = {"boot_url": context.boot_url, "api_url": context.api_url}
            return handover.assignments(decision, **urls, mac=resource.mac or "", digest=context.digest)

        return wire.plain(wire.assignments(await self._hub.blocking(compute)))

    async def ticket(self, request: Request) -> Response:
        """The ticket for that boot, as an initrd. It is the machine that asks, so that none is refused it."""
        token = wire.bearer(request.scope["headers"])

        def issue() -> bytes:
            with self._context.database.write() as writer:
                resource = _present(writer, token)
                if not decision_for(writer, resource, self._context.hooks).ticket:
                    raise NotFoundError("no boot of this machine is awaited")
                return tickets.archive(tickets.issue(writer, resource))

        return Response(await self._hub.writing(issue), media_type="application/octet-stream")

    async def file(self, request: Request) -> Response:
        """The agent, or a plug-in's file for machines."""
        token, name = wire.bearer(request.scope["headers"]), request.path_params["name"]

        def read() -> bytes | None:
            with self._context.database.read() as reader:
                _known(reader, token)
                return self._context.files.read(reader, name)

        content = await self._hub.blocking(read)
        if content is None:
            raise NotFoundError(f"there is no node file {name[:80]}")
        return Response(content, media_type="application/octet-stream")

    async def program(self, request: Request) -> Response:
        """A program with its libraries, as a tarball to unpack into the machine's runtime."""
        token, name = wire.bearer(request.scope["headers"]), request.path_params["name"]

        def find() -> Path | None:
            with self._context.database.read() as reader:
                _known(reader, token)
                return self._context.files.program(reader, name)

        path = await self._hub.blocking(find)
        if path is None:
            raise NotFoundError(
                f"no program {name[:80]} is handed to machines",
                remedy="enable the plug-in that brings it, or declare it in the plug-in's node_programs",
            )
        return FileResponse(path, media_type="application/gzip")

    async def services(self, request: Request) -> Response:
        """The list of boot services."""
        token = wire.bearer(request.scope["headers"])

        def read() -> str:
            with self._context.database.read() as reader:
                _known(reader, token)
                found = self._context.files.services(reader)
            return "".join(f"{one.name} {one.version} {one.sha256}\n" for one in found)

        return wire.plain(await self._hub.blocking(read))

    async def service(self, request: Request) -> Response:
        """One boot service as a tarball."""
        token, name = wire.bearer(request.scope["headers"]), request.path_params["name"]

        def read() -> bytes | None:
            with self._context.database.read() as reader:
                _known(reader, token)
                return next((one.content for one in self._context.files.services(reader) if one.name == name), None)

        content = await self._hub.blocking(read)
        if content is None:
            raise NotFoundError(f"there is no boot service {name[:80]}")
        return Response(content, media_type="application/gzip")


def _known(reader: Reader, token: str) -> Session:
    session = machine_tokens.session_of(reader, token)
    if session is None:
        raise UnauthenticatedError("this token is not valid (any more)", remedy="register")
    return session


def _present(reader: Reader, token: str) -> Resource:
    """The machine that a token speaks for, in its present boot."""
    session = _known(reader, token)
    resource = reader.get(Resource, session.resource_id)
    if resource.boot_id != session.boot_id:
        raise UnauthenticatedError("this machine has booted anew since", remedy="register")
    return resource


async def _report(request: Request) -> Report | Response:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_REPORT:
            return wire.problem(413, "invalid", f"a registration has at most {MAX_REPORT} bytes")
    try:
        return Report.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in fault["loc"])
        return wire.problem(422, "invalid", fault["msg"], field or None)


def create_node_app(context: NodeContext, hub: Hub | None = None) -> Starlette:
    """The node API, to be mounted at `/node/v1`.

    A mounted application gets no lifespan events: whoever mounts it awaits `app.state.hub.start()` and `.stop()`.
    Served by itself it does so alone.
    """
    hub = hub or Hub(context)
    api = NodeApi(context, hub)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        await hub.start()
        try:
            yield
        finally:
            await hub.stop()

    routes = [
        Route("/stream", StreamEndpoint(context, hub), methods=["POST"]),
        Route("/register", _answers(api.register), methods=["POST"]),
        Route("/deployment", _answers(api.deployment), methods=["GET"]),
        Route("/transfer/{order:int}", _answers(api.transfer), methods=["GET"]),
        Route("/disks/{order:int}", _answers(api.disks), methods=["GET"]),
        Route("/boot", _answers(api.boot), methods=["GET"]),
        Route("/ticket", _answers(api.ticket), methods=["GET"]),
        Route("/files/{name}", _answers(api.file), methods=["GET"]),
        Route("/programs/{name}.tar.gz", _answers(api.program), methods=["GET"]),
        Route("/services", _answers(api.services), methods=["GET"]),
        Route("/services/{name}.tar.gz", _answers(api.service), methods=["GET"]),
    ]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.state.hub = hub
    return app
