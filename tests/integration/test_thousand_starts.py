"""1,000 concurrent `appliance start` calls over the API: all recorded, none lost, nothing given twice.

How long that takes is `python -m bench start`'s business; here only what is right and wrong is looked at.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from openqrm.api.application import create_app
from openqrm.domain.appliance import Appliance, AppliancePhase
from openqrm.domain.lease import Lease, LeaseState
from openqrm.domain.operation import Operation, OperationStatus
from openqrm.domain.resource import Phase, Resource
from openqrm.testing.datacentre import STORAGE_HOST, Datacentre
from openqrm.testing.fake_host import FakeHosts
from openqrm.testing.wiring import ADMIN, add_users, context_of

if TYPE_CHECKING:
    from openqrm.store.database import SqlDatabase

STARTS = 1_000
WORKERS = 64
COMMAND_SECONDS = 0.01


async def call_all(datacentre: Datacentre, database: SqlDatabase, names: list[str]) -> list[httpx.Response]:
    app = create_app(context_of(database, datacentre.pipeline))
    headers = {"Authorization": f"Bearer {ADMIN.name}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://test", headers=headers
    ) as client:
        return list(await asyncio.gather(*(client.post(f"/v1/appliances/{name}/start") for name in names)))


async def most_active(runner: Any) -> int:
    """Watches until cancelled how many operations are executed at once; ends with the most."""
    most = 0
    with suppress(asyncio.CancelledError):
        while True:
            most = max(most, len(runner.active))
            await asyncio.sleep(0.005)
    return most


@pytest.mark.timeout(600)
async def test_a_thousand_starts_at_once(sql_database: SqlDatabase) -> None:
    hosts = FakeHosts()
    hosts.host(STORAGE_HOST).delay = COMMAND_SECONDS
    datacentre = Datacentre(sql_database, machines=STARTS, appliances=STARTS, hosts=hosts)
    datacentre.obeying.threaded = True
    add_users(sql_database)
    runner = datacentre.site.runner(workers=WORKERS, threads=4)
    await runner.start()
    watching = asyncio.create_task(most_active(runner))
    try:
        names = [f"service{number}" for number in range(1, STARTS + 1)]
        answers = await call_all(datacentre, sql_database, names)
        await datacentre.settle()
    finally:
        watching.cancel()
        most = await watching
        await runner.stop()
    assert Counter(answer.status_code for answer in answers) == {202: STARTS}
    assert 1 < most <= WORKERS
    recorded(sql_database, {answer.json()["id"] for answer in answers})
    nothing_given_twice(sql_database)
    granted = Counter(request.argv[1] for request in hosts.requests if request.argv[0] == "grant")
    assert len(granted) == STARTS
    assert set(granted.values()) == {1}, "an access was granted more than once"
    datacentre.check()


def recorded(database: SqlDatabase, accepted: set[int]) -> None:
    """Every accepted call has an operation of its own, and every operation ended well."""
    with database.read() as reader:
        operations = reader.find(Operation, name="appliance.start")
    assert len(accepted) == STARTS
    assert {each.id for each in operations} == accepted
    assert Counter(each.status for each in operations) == {OperationStatus.DONE: STARTS}


def nothing_given_twice(database: SqlDatabase) -> None:
    """Each appliance runs on a machine and an address that no other has, under a lease of its own."""
    with database.read() as reader:
        appliances = reader.find(Appliance)
        leases = reader.find(Lease, state=LeaseState.HELD)
        active = reader.count(Resource, phase=Phase.ACTIVE)
    assert {each.phase for each in appliances} == {AppliancePhase.RUNNING}
    assert len({each.address for each in appliances}) == STARTS
    assert len({each.running_on for each in appliances}) == active == STARTS
    for shown in ("image_id", "resource_id", "appliance_id", "operation_id"):
        assert len({getattr(lease, shown) for lease in leases}) == len(leases) == STARTS
