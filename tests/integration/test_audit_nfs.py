"""Audits of a real NFS storage: what somebody exported by hand is found and taken back, what is missing is granted."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.appliance import Appliance, ApplianceDesired, AppliancePhase
from openqrm.domain.lease import Lease
from openqrm.domain.operation import Operation, OperationStatus
from openqrm.domain.resource import Desired, Health, Phase, Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.domain.user import SYSTEM
from openqrm.engine.changes import Changes
from openqrm.engine.planning import Planners
from openqrm.operations.changes import CHANGES
from openqrm.operations.conditions import CONDITIONS
from openqrm.operations.core_orders import ORDER_CHANGES
from openqrm.operations.pipeline import Pipeline, Services
from openqrm.operations.registry import Registry
from openqrm.plugin_api.drivers import Cap, StorageContext
from openqrm.plugins.storage.dir.driver import DirPool
from openqrm.plugins.storage.dir.plugin import DirSettings
from openqrm.plugins.storage.nfs.driver import NfsExport
from openqrm.plugins.storage.nfs.plugin import NfsSettings
from openqrm.testing import needs
from openqrm.testing.access_nfs import NfsAccess
from openqrm.testing.controller import Site, StoredSecrets
from openqrm.testing.datacentre import NoHooks
from openqrm.testing.memory import MemoryDatabase, MemoryTables
from openqrm.testing.storage_host import STORAGE, RealStorage, real_storage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from openqrm.plugin_api.records import Reader

NEEDED = ("ganesha.nfsd", "sshd", "nfs-cat", "dbus-send", "ip")
ADD_EXPORT = (
    "dbus-send --system --print-reply --dest=org.ganesha.nfsd /org/ganesha/nfsd/ExportMgr "
    "org.ganesha.nfsd.exportmgr.AddExport"
)
BY_HAND = """EXPORT {{
  Export_Id = 777; Path = {path}; Pseudo = {path}; Protocols = 4; Access_Type = NONE; Squash = No_Root_Squash;
  FSAL {{ Name = VFS; }}
  CLIENT {{ Clients = {client}; Access_Type = RW; Squash = No_Root_Squash; }}
}}
"""


@dataclass(frozen=True)
class Drivers:
    """The real ones, for one storage."""

    reader: Reader

    def pool(self, storage: Storage) -> DirPool:
        del storage
        return DirPool()

    def export(self, storage: Storage) -> NfsExport:
        del storage
        return NfsExport()

    def context(self, storage: Storage, reader: Reader) -> StorageContext:
        address = reader.get(Resource, storage.resource_id).address
        return StorageContext(storage, storage.resource_id, address or "", DirSettings(), NfsSettings())

    def require(self, storage: Storage, capability: str) -> None:
        Cap(capability)
        del storage


@dataclass(frozen=True)
class Installation:
    """Our records, the engine and the real storage host with its clients."""

    storage: RealStorage
    site: Site
    pipeline: Pipeline

    async def done(self, name: str, target: str | None, /, **arguments: Any) -> dict[str, Any]:
        """Call an operation and see it through; its result."""
        operation = self.pipeline.call(name, SYSTEM, target, arguments).operation
        assert operation is not None
        runner = self.site.runner()
        await runner.start()
        try:
            await self.site.settle(seconds=120)
        finally:
            await runner.stop()
        ended = self.site.work(operation.id).operation
        assert ended.status is OperationStatus.DONE, ended.error
        return ended.result or {}

    async def findings(self, *, fix: bool = False) -> list[tuple[str, str]]:
        """Kind and text of what an audit finds, or still finds when it has set things right."""
        result = await self.done("storage.audit", "nfs1", fix=fix)
        return [(one["kind"], one["text"]) for one in result["report"]["findings"]]

    def reads(self, number: int, path: str) -> bool:
        """Whether that client can read what is in the volume."""
        access = NfsAccess(self.storage.clients)
        client = self.storage.clients[number].client()
        return access.read(client, {"ROOT_SERVER": self.storage.address, "ROOT_PATH": path}, {}) is not None


def wired(storage: RealStorage, hosts: Any) -> Installation:
    database = MemoryDatabase()
    kind = {
        "own_machine": False,
        "in_memory": False,
        "start": "root",
        "secrets": [],
        "through": "",
        "capabilities": ["authorize", "lend", "list", "revoke-proof"],
    }
    settings: dict[str, Any] = {"deployments": {"nfs": "nfs-root"}, "storage_types": {"nfs": kind}}
    registry, changes, drivers = Registry.of_installation(), CHANGES | ORDER_CHANGES, Drivers
    planners = Planners(
        database=database,
        hosts=hosts,
        secrets=StoredSecrets(database),
        operation=registry.operation,
        entities=registry.entities,
        hooks=lambda reader: NoHooks(),  # no plug-in is started
        drivers=drivers,
        changes=Changes(changes, settings),
        settings=settings,
        offload=_in_place,
    )
    site = Site(database, hosts, changes, CONDITIONS, planners.plan)
    services = Services(site.journal, Changes(changes, settings), drivers, planners.dry_run, MemoryTables())
    made = Installation(storage, site, Pipeline(database, registry, services, settings))
    with database.write() as writer:
        host = writer.insert(Resource(name="nfs1", address=storage.address, manual=True, phase=Phase.UNKNOWN))
        assert host.id == STORAGE
        writer.insert(Storage(name="nfs1", type="nfs", resource_id=host.id))
        for machine in storage.clients:
            client = machine.client()
            writer.insert(
                Resource(name=client.name, address=client.address, mac=client.mac, phase=Phase.IDLE, health=Health.OK)
            )
    return made


async def _in_place(function: Any) -> Any:
    return function()


def running(made: Installation, volume: str, machine: str) -> None:
    """An appliance that runs from the volume on the machine, by our records."""
    with made.site.database.write() as writer:
        stored, resource = writer.one(Volume, name=volume), writer.one(Resource, name=machine)
        assert stored is not None
        assert resource is not None
        image = writer.insert(Image(name=volume, volume_id=stored.id))
        past = writer.insert(Operation(name="appliance.start", status=OperationStatus.DONE))
        appliance = writer.insert(
            Appliance(name="web", image_id=image.id, phase=AppliancePhase.RUNNING, desired=ApplianceDesired.RUNNING)
        )
        writer.insert(
            Lease(
                image_id=image.id,
                resource_id=resource.id,
                appliance_id=appliance.id,
                operation_id=past.id,
                generation=stored.generation + 1,
                held_image=image.id,
                held_resource=resource.id,
                held_appliance=appliance.id,
            )
        )
        writer.update(stored, generation=stored.generation + 1)
        writer.update(resource, phase=Phase.ACTIVE, desired=Desired.ASSIGNED)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStorage]:
    needs.root_and(*NEEDED)
    with real_storage(tmp_path_factory.mktemp("audit"), f"a{os.getpid() % 100000}") as started:
        yield started


@pytest.fixture
async def made(storage: RealStorage) -> AsyncIterator[Installation]:
    with storage.controller_network():
        hosts = storage.hosts()
        yield wired(storage, hosts)
        await hosts.close()


@contextmanager
def exported_by_hand(storage: RealStorage, path: str, client: str) -> Iterator[None]:
    """As an administrator does it who does not know of us: a file for the next start, and the running server told."""
    file = "/etc/ganesha/exports.d/by-hand.conf"
    text = BY_HAND.format(path=path, client=client)
    storage.inside(
        "sh", "-c", f"cat >{file} <<'END'\n{text}END\n{ADD_EXPORT} string:{file} string:'EXPORT(Export_Id=777)'"
    )
    try:
        yield
    finally:
        storage.inside("sh", "-c", f"rm -f {file}")


async def test_what_was_exported_by_hand_is_found_and_taken_back(made: Installation) -> None:
    storage = made.storage
    await made.done("volume.create", None, name="web", storage_id="nfs1")
    await made.done("volume.create", None, name="secret", storage_id="nfs1")
    for name in ("web", "secret"):
        storage.inside("sh", "-c", f"echo {name} >/srv/openqrm/{name}/mark")
    assert await made.findings() == []
    running(made, "web", "c1")
    assert await made.findings() == [("missing grant", "c1 may not write it, for appliance web, generation 1")]
    assert await made.findings(fix=True) == []
    assert made.reads(0, "/srv/openqrm/web")

    stranger = storage.clients[1].address
    with exported_by_hand(storage, "/srv/openqrm/secret", stranger):
        assert made.reads(1, "/srv/openqrm/secret")
        found = await made.findings()
        assert ("unexpected grant", f"{stranger} may write /srv/openqrm/secret: it was made by hand") in found
        assert all(kind == "unexpected grant" and "/secret" in text for kind, text in found)
        assert made.reads(1, "/srv/openqrm/secret"), "it only looked"

        assert await made.findings(fix=True) == []
        assert not made.reads(1, "/srv/openqrm/secret")
        assert made.reads(0, "/srv/openqrm/web"), "who has a lease notices nothing"
        await asyncio.to_thread(storage.kill_nfs_server)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(storage.wait_for_nfs_server)
        await asyncio.sleep(6)
        assert not made.reads(1, "/srv/openqrm/secret"), "not after a restart either"
        assert await made.findings() == []
        assert made.reads(0, "/srv/openqrm/web")
