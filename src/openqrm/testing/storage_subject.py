"""What the conformance suite of storage types works on: one storage type on one real host."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from openqrm.domain.errors import CommandFailedError
from openqrm.domain.storage import Storage, Volume
from openqrm.engine.ports import Ready
from openqrm.plugin_api.drivers import Export, Pool, StorageContext, StorageType
from openqrm.plugin_api.loading import load
from openqrm.testing.steps import StepRunner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from openqrm.engine.ports import Hosts
    from openqrm.plugin_api.drivers import Cap, Client, ExportDriver, Grant, PoolDriver
    from openqrm.plugin_api.facts import Facts
    from openqrm.plugin_api.plugin import Plugin
    from openqrm.plugin_api.steps import Steps

_IDS = itertools.count(1)


@dataclass
class Subject:
    """One storage type on one real host.

    `reads` (client, path) tells what a client's mount shows, or None when it is refused. `start_counting` (client,
    location, name) lets a client write a growing counter to a file in the volume without end, whatever errors it meets,
    and returns what ends it. `set_link` cuts a client off the network, or brings it back. `restart` restarts the host's
    storage server and waits until it serves. `dead_host` is a resource that does not answer.
    """

    plugin: Plugin
    type_name: str
    hosts: Hosts
    host: int
    address: str
    dead_host: int
    clients: tuple[Client, ...]
    reads: Callable[[Client, str], Awaitable[str | None]]
    start_counting: Callable[[Client, str, str], Callable[[], None]]
    set_link: Callable[[Client, bool], None]
    restart: Callable[[], Awaitable[None]]
    settings: dict[str, object] = field(default_factory=dict)
    generations: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find the declarations and load the drivers."""
        provided = self.plugin.provides
        kind = next(one for one in provided if isinstance(one, StorageType) and one.name == self.type_name)
        self.pool_declared = next(one for one in provided if isinstance(one, Pool) and one.name == kind.pool)
        self.export_declared = next(one for one in provided if isinstance(one, Export) and one.name == kind.export)
        self.pool: PoolDriver = load(self.pool_declared.driver)()
        self.export: ExportDriver = load(self.export_declared.driver)()
        self.declared = self.pool_declared.capabilities | self.export_declared.capabilities
        self.runner = StepRunner(self.hosts)

    def context(self, host: int | None = None) -> StorageContext:
        """The storage as its drivers see it."""
        number = self.host if host is None else host
        storage = Storage(id=1, name="store", type=self.type_name, resource_id=number, settings=self.settings)
        own = {key: value for key, value in self.settings.items() if key in self.pool_declared.spec.model_fields}
        handed = {key: value for key, value in self.settings.items() if key in self.export_declared.spec.model_fields}
        pool, export = self.pool_declared.spec(**own), self.export_declared.spec(**handed)
        return StorageContext(storage, number, self.address, pool, export)

    def volume(self, generation: int = 0) -> Volume:
        """A volume of a name and id that no other test has."""
        number = next(_IDS) + time.time_ns() // 1_000_000 % 1_000_000_000 * 1000
        return Volume(id=number, name=f"v{number}", storage_id=1, generation=generation)

    async def pool_facts(self) -> Facts:
        """What the pool asks."""
        return await self.runner.facts(self.pool.facts(self.context()))

    async def export_facts(self) -> Facts:
        """What the export asks."""
        return await self.runner.facts(self.export.facts(self.context()))

    async def names(self) -> set[str]:
        """The volumes on the host."""
        return {entry.name for entry in self.pool.entries(self.context(), await self.pool_facts())}

    async def grants(self, volume: Volume) -> list[Grant]:
        """The grants of a volume on the host."""
        found = self.export.grants(self.context(), await self.export_facts())
        return [grant for grant in found if grant.volume == f"volume-{volume.id}"]

    async def create(self, volume: Volume) -> Steps:
        """The steps that make it."""
        return self.pool.create(self.context(), volume, await self.pool_facts())

    async def clone(self, source: Volume, volume: Volume) -> Steps:
        """The steps that copy it."""
        return self.pool.clone(self.context(), source, volume, await self.pool_facts())

    async def fill(self, volume: Volume, archive: str) -> Steps:
        """The steps that unpack into it."""
        return self.pool.fill(self.context(), volume, archive, await self.pool_facts())

    async def remove(self, volume: Volume) -> Steps:
        """The steps that destroy it, at the generation of its last lease."""
        now = volume.model_copy(update={"generation": self.generations.get(volume.id, 0)})
        return self.pool.remove(self.context(), now, await self.pool_facts())

    async def authorize(self, volume: Volume, client: Client, generation: int) -> Steps:
        """The steps that grant access."""
        self.generations[volume.id] = max(generation, self.generations.get(volume.id, 0))
        where = self.pool.location(self.context(), volume)
        return self.export.authorize(self.context(), volume, where, client, generation, await self.export_facts())

    async def revoke(self, volume: Volume, client: Client, generation: int) -> Steps:
        """The steps that take it back."""
        where = self.pool.location(self.context(), volume)
        return self.export.revoke(self.context(), volume, where, client, generation, await self.export_facts())

    async def shell(self, script: str, *words: str) -> str:
        """Run a script on the host, for what a test prepares or looks at."""
        done = await self.hosts.run(self.host, Ready(("sh", "-ec", script, "sh", *words)), gate=None, seconds=60)
        if done.status:
            raise CommandFailedError(done.stderr, exit_status=done.status)
        return done.stdout

    async def made(self, content: str = "content") -> Volume:
        """A volume that is there, with a file `mark` in its tree."""
        volume = self.volume()
        await self.runner.do(await self.create(volume))
        where = self.pool.location(self.context(), volume)
        await self.shell('printf %s "$2" >"$1/mark"', where, content)
        return volume

    def require(self, capability: Cap) -> None:
        """Skip what the type does not declare."""
        if capability not in self.declared:
            pytest.skip(f"{self.type_name} does not declare {capability}")
