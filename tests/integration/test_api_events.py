"""The stream of events, as those who read it see it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Self

import pytest

from openqrm.api import feed
from openqrm.api.application import create_app
from openqrm.domain.event import Severity
from openqrm.domain.user import User
from openqrm.operations.credentials import Authenticator, hash_password, use_passwords
from openqrm.operations.passwords import CHEAP, Passwords
from openqrm.testing.api_client import client_of
from openqrm.testing.wiring import OPERATOR, add_users, context_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx
    from fastapi import FastAPI

    from openqrm.store.database import SqlDatabase
    from openqrm.testing.memory import MemoryDatabase


@pytest.fixture
async def client(database: SqlDatabase | MemoryDatabase) -> AsyncIterator[httpx.AsyncClient]:
    add_users(database)
    async with client_of(database) as found:
        yield found


class Stream:
    """Reads an endless answer straight from the application: httpx waits for the end of one."""

    def __init__(
        self,
        database: SqlDatabase | MemoryDatabase,
        path: str,
        headers: dict[str, str],
        app: FastAPI | None = None,
    ) -> None:
        self.app = app or create_app(context_of(database, keep_alive_seconds=0.1))
        pairs = {"authorization": f"Bearer {OPERATOR.name}"} | headers
        self.scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in pairs.items()],
            "client": None,
            "server": None,
            "scheme": "http",
            "http_version": "1.1",
            "root_path": "",
        }
        self.parts: asyncio.Queue[bytes] = asyncio.Queue()
        self.text = ""

    async def __aenter__(self) -> Self:
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if asked:
                await asyncio.Event().wait()
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            await self.parts.put(message.get("body", b""))

        self.task = asyncio.create_task(self.app(self.scope, receive, send))
        return self

    async def __aexit__(self, *error: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def until(self, wanted: str) -> str:
        async with asyncio.timeout(10):
            while wanted not in self.text:
                self.text += (await self.parts.get()).decode()
        return self.text


async def test_events_are_streamed_as_they_are_committed_and_resumed(client: httpx.AsyncClient) -> None:
    database = client._transport.app.state.context.pipeline.database  # type: ignore[attr-defined]  # of the fixture
    await client.post("/v1/networks", json={"name": "before", "cidr": "10.1.0.0/24"})
    async with Stream(database, "/v1/events/stream", {}) as stream:
        await stream.until("retry: 2000")
        await client.post("/v1/networks", json={"name": "first", "cidr": "10.2.0.0/24"})
        text = await stream.until("network.create first")
        assert "before" not in text
        await stream.until(": still here")
    number = next(line[4:] for line in text.splitlines() if line.startswith("id: "))
    await client.post("/v1/networks", json={"name": "second", "cidr": "10.3.0.0/24"})
    async with Stream(database, "/v1/events/stream", {"Last-Event-ID": number}) as stream:
        text = await stream.until("network.create second")
        assert "network.create first" not in text
    refused = await client.get("/v1/events/stream", headers={"Last-Event-ID": "x"})
    assert refused.status_code == 422


async def test_a_stream_ends_with_the_right_to_read_it(database: SqlDatabase | MemoryDatabase) -> None:
    use_passwords(Passwords(CHEAP))
    add_users(database)
    with database.write() as writer:
        password = "long enough"
        writer.insert(User(name="eve", password_hash=hash_password(password)))
    authentication = Authenticator(database, "key")
    app = create_app(context_of(database, keep_alive_seconds=0.1, authentication=authentication))
    _, one = authentication.login("eve", password)
    _, other = authentication.login("eve", password)
    streams = [Stream(database, "/v1/events/stream", {"authorization": f"Bearer {key}"}, app) for key in (one, other)]
    async with streams[0], streams[1]:
        for each in streams:
            await each.until(": still here")
        await asyncio.to_thread(authentication.logout, f"Bearer {one}")
        await asyncio.wait_for(streams[0].task, 5)
        assert not streams[1].task.done()
        with database.write() as writer:
            user = writer.one(User, name="eve")
            assert user is not None
            writer.update(user, enabled=False)
        await asyncio.wait_for(streams[1].task, 5)


async def test_many_streams_share_one_read_and_are_bounded(database: SqlDatabase | MemoryDatabase) -> None:
    add_users(database)
    context = context_of(database)
    asked: list[object] = []

    class Counting(type(context)):  # type: ignore[misc]  # the context of this test
        async def call(self, function: Any) -> Any:
            asked.append(function)
            return await super().call(function)

    app = create_app(Counting(**vars(context)))
    async with contextlib.AsyncExitStack() as stack:
        streams = [Stream(database, "/v1/events/stream", {}, app) for _ in range(feed.STREAMS_OF_ONE)]
        for each in streams:
            await stack.enter_async_context(each)
            await each.until("retry: 2000")
        async with Stream(database, "/v1/events/stream", {}, app) as refused:
            assert '"code": "too-many"' in await refused.until("}")
        await asyncio.sleep(0.2)
        asked.clear()
        for number in range(3 * feed.PAGE):
            with database.write() as writer:
                writer.event(f"event {number}", severity=Severity.INFO, source="test")
        for each in streams:
            text = await each.until(f'event {3 * feed.PAGE - 1}"')
            assert text.count("id: ") == 3 * feed.PAGE
        assert len(asked) < 3 * feed.PAGE
        await asyncio.sleep(0.1)
        asked.clear()
        with database.write() as writer:
            writer.event("one more", severity=Severity.INFO, source="test")
        for each in streams:
            await each.until("one more")
        assert len(asked) <= 3, "one read for all"
    async with Stream(database, "/v1/events/stream", {}, app) as again:
        await again.until("retry: 2000")
