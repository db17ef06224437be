"""Two appliances ask for the last idle machine over the API: one starts, the other is refused or waits if told to."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import httpx

from openqrm.api.application import create_app
from openqrm.testing.datacentre import Datacentre
from openqrm.testing.wiring import ADMIN, add_users, context_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from openqrm.store.database import SqlDatabase
    from openqrm.testing.memory import MemoryDatabase


@asynccontextmanager
async def served(datacentre: Datacentre, database: SqlDatabase | MemoryDatabase) -> AsyncIterator[httpx.AsyncClient]:
    """The API of a datacentre whose controller and machines are at work."""
    add_users(database)
    app = create_app(context_of(database, datacentre.pipeline))
    runner = datacentre.site.runner()
    await runner.start()
    obeying = asyncio.create_task(datacentre.obeying.run(datacentre.site.notifier))
    transport, headers = httpx.ASGITransport(app=app), {"Authorization": f"Bearer {ADMIN.name}"}
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
            yield client
    finally:
        await runner.stop()
        obeying.cancel()
        with suppress(asyncio.CancelledError):
            await obeying


async def ended(client: httpx.AsyncClient, location: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            found: dict[str, Any] = (await client.get(location)).json()
            if found["status"] in ("done", "failed", "attention"):
                return found
            await asyncio.sleep(0.05)


async def phase(client: httpx.AsyncClient, name: str) -> str:
    return str((await client.get(f"/v1/appliances/{name}")).json()["phase"])


async def test_the_last_machine_is_given_once_and_may_be_waited_for(database: SqlDatabase | MemoryDatabase) -> None:
    datacentre = Datacentre(database, machines=1, appliances=2)
    async with served(datacentre, database) as client:
        names = ("service1", "service2")
        answers = await asyncio.gather(*(client.post(f"/v1/appliances/{name}/start") for name in names))
        assert sorted(answer.status_code for answer in answers) == [202, 409]
        refused = next(answer for answer in answers if answer.status_code == 409).json()
        assert (refused["code"], "no idle resource" in refused["detail"]) == ("no-capacity", True)
        assert refused["remedy"]
        place = [answer.status_code for answer in answers].index(202)
        winner, loser = names[place], names[1 - place]
        assert (await ended(client, answers[place].headers["location"]))["status"] == "done"
        assert (await phase(client, winner), await phase(client, loser)) == ("running", "stopped")

        waiting = await client.post(f"/v1/appliances/{loser}/start?wait=true")
        assert waiting.status_code == 202
        await asyncio.sleep(0.5)
        assert (await client.get(waiting.headers["location"])).json()["status"] in ("queued", "running")
        stop = await client.post(f"/v1/appliances/{winner}/stop")
        assert (await ended(client, stop.headers["location"]))["status"] == "done"
        assert (await ended(client, waiting.headers["location"]))["status"] == "done"
        assert (await phase(client, winner), await phase(client, loser)) == ("stopped", "running")
    datacentre.check()


async def test_one_who_waits_can_be_cancelled(database: SqlDatabase | MemoryDatabase) -> None:
    datacentre = Datacentre(database, machines=0, appliances=1)
    async with served(datacentre, database) as client:
        waiting = await client.post("/v1/appliances/service1/start?wait=true")
        assert waiting.status_code == 202
        await asyncio.sleep(0.3)
        assert (await client.post(f"{waiting.headers['location']}/cancel")).status_code == 200
        assert (await ended(client, waiting.headers["location"]))["status"] == "failed"
        assert await phase(client, "service1") == "stopped"
    datacentre.check()


async def test_many_calls_at_once_are_all_recorded(database: SqlDatabase | MemoryDatabase) -> None:
    datacentre = Datacentre(database, machines=20, appliances=30)
    async with served(datacentre, database) as client:
        names = [f"service{number}" for number in range(1, 31)]
        answers = await asyncio.gather(*(client.post(f"/v1/appliances/{name}/start") for name in names))
        started = [answer for answer in answers if answer.status_code == 202]
        assert len(started) == 20
        assert {answer.status_code for answer in answers} == {202, 409}
        statuses = [(await ended(client, answer.headers["location"]))["status"] for answer in started]
        assert statuses == ["done"] * 20
    datacentre.check()
