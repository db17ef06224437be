"""After a restore: what a real host gate recorded is read and raised above, and then it takes our commands again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from openqrm.admin.generations import raise_by
from openqrm.domain.appliance import Appliance, ApplianceDesired, AppliancePhase
from openqrm.domain.errors import StaleError, UnreachableError
from openqrm.domain.lease import Lease
from openqrm.domain.operation import Counter, Operation
from openqrm.domain.resource import SERVER_ID, Resource
from openqrm.domain.storage import Image, Storage, Volume, VolumePhase
from openqrm.engine.journal import EPOCH
from openqrm.engine.ports import GateToken, Ready
from openqrm.operations.restoring import first_generation
from openqrm.remote.endpoint import Endpoint
from openqrm.remote.hosts import RemoteHosts
from openqrm.testing.ssh_server import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from openqrm.store.database import SqlDatabase
    from openqrm.testing.memory import MemoryDatabase


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[RemoteHosts]:
    endpoint = Endpoint("127.0.0.1", port=free_port(), host_keys=(), first_use=True, name="away")
    made = RemoteHosts(
        lookup=lambda _: endpoint, learned=lambda *_: None, key_file=tmp_path / "none", local_gate=tmp_path / "gate"
    )
    yield made
    await made.close()


def restored(database: SqlDatabase | MemoryDatabase) -> None:
    """A backup: `web` runs at generation 2, `mail` was never started; its machine had none."""
    with database.write() as writer:
        writer.insert(Resource(id=SERVER_ID, name="openqrm", manual=True))
        node = writer.insert(Resource(name="node", mac="52:54:00:00:00:01"))
        storage = writer.insert(Storage(name="nfs1", type="nfs-storage", resource_id=SERVER_ID))
        for number, name in enumerate(("web", "mail", "calm"), start=1):
            ready = {"storage_id": storage.id, "phase": VolumePhase.READY, "generation": 2 if name != "mail" else 0}
            image = writer.insert(Image(name=name, volume_id=writer.insert(Volume(name=name, **ready)).id))
            writer.insert(Appliance(name=name, image_id=image.id))
            assert image.volume_id == number
        operation = writer.insert(Operation(name="appliance.start"))
        web = writer.find(Appliance, name="web")[0]
        writer.update(web, phase=AppliancePhase.RUNNING, desired=ApplianceDesired.RUNNING, running_on=node.id)
        ids = {"resource_id": node.id, "appliance_id": web.id, "operation_id": operation.id}
        held = {"held_image": web.image_id, "held_resource": node.id, "held_appliance": web.id}
        writer.insert(Lease(image_id=web.image_id, generation=2, **ids, **held))


async def gated(hosts: RemoteHosts, volume: str, generation: int, epoch: int) -> None:
    token = GateToken(volume, generation, epoch, f"key-{generation}-{epoch}")
    await hosts.run(SERVER_ID, Ready(("true",)), gate=token, seconds=10)


async def test_all_is_raised_above_the_hosts_records(
    database: SqlDatabase | MemoryDatabase, hosts: RemoteHosts
) -> None:
    restored(database)
    for volume, generation, epoch in (
        ("volume-1", 7, 40),
        ("volume-2", 1, 90),
        ("volume-3", 2, 3),
        ("volume-9", 12, 5),
    ):
        await gated(hosts, volume, generation, epoch)
    with pytest.raises(StaleError):
        await gated(hosts, "volume-1", 2, 91)
    raised = await raise_by(database, hosts)
    assert (raised.volumes, raised.overtaken) == (("web", "mail"), ("web", "mail"))
    with database.read() as reader:
        assert [volume.generation for volume in reader.find(Volume)] == [7, 1, 2]
        assert first_generation(reader) == 12
        counter = reader.one(Counter, name=EPOCH)
        leases = {reader.get(Appliance, one.appliance_id).name: one for one in reader.find(Lease, state="held")}
        assert {appliance.phase for appliance in reader.find(Appliance)} == {AppliancePhase.STOPPED}
    assert {name: (one.generation, one.held_resource) for name, one in leases.items()} == {
        "web": (7, 1),
        "mail": (1, None),
    }
    assert counter
    assert counter.value == 90
    await gated(hosts, "volume-1", 7, counter.value + 1)
    assert (await raise_by(database, hosts)).overtaken == ()


async def test_a_host_without_an_answer_is_named(database: SqlDatabase | MemoryDatabase, hosts: RemoteHosts) -> None:
    restored(database)
    with database.write() as writer:
        away = writer.insert(Resource(name="rack9", mac="52:54:00:00:00:09", address="127.0.0.1"))
        writer.insert(Storage(name="far", type="nfs-storage", resource_id=away.id))
    await gated(hosts, "volume-1", 3, 4)
    with pytest.raises(UnreachableError, match="rack9"):
        await asyncio.wait_for(raise_by(database, hosts), 60)
    with database.read() as reader:
        assert reader.get(Volume, 1).generation == 3
