"""What a subject of the conformance suites plans: the steps of its drivers, from fresh facts of the host."""

from __future__ import annotations

import itertools
import secrets as randomness
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from openqrm.plugin_api.values import Secret

if TYPE_CHECKING:
    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import Client, Export, ExportDriver, Grant, PoolDriver, StorageContext
    from openqrm.plugin_api.facts import Facts
    from openqrm.plugin_api.steps import Steps
    from openqrm.testing.steps import StepRunner

_KEYS = itertools.count(1)


class SubjectPlans(ABC):
    """Part of `Subject`, which has the fields."""

    pool: PoolDriver
    export: ExportDriver
    export_declared: Export | None
    runner: StepRunner
    generations: dict[int, int]
    secrets: dict[str, str]
    known: dict[tuple[int, int], dict[str, str]]

    @abstractmethod
    def context(self, host: int | None = None) -> StorageContext:
        """The storage as its drivers see it."""

    def where(self, volume: Volume) -> str:
        """The volume's location."""
        return self.pool.location(self.context(), volume)

    def now(self, volume: Volume) -> Volume:
        """The volume as our records have it: with the generation of its last lease."""
        return volume.model_copy(update={"generation": self.generations.get(volume.id, volume.generation)})

    async def pool_facts(self) -> Facts:
        """What the pool asks."""
        return await self.runner.facts(self.pool.facts(self.context()))

    async def export_facts(self) -> Facts:
        """What the export asks."""
        return await self.runner.facts(self.export.facts(self.context()))

    # --- Steps of the pool.

    async def create(self, volume: Volume) -> Steps:
        """The steps that make it."""
        return self.pool.create(self.context(), self.now(volume), await self.pool_facts())

    async def clone(self, source: Volume, volume: Volume) -> Steps:
        """The steps that copy it."""
        return self.pool.clone(self.context(), self.now(source), self.now(volume), await self.pool_facts())

    async def snapshot(self, source: Volume, volume: Volume) -> Steps:
        """The steps that make one which holds only what differs."""
        pool: Any = self.pool
        steps: Steps = pool.snapshot(self.context(), self.now(source), self.now(volume), await self.pool_facts())
        return steps

    async def resize(self, volume: Volume, size_mb: int) -> Steps:
        """The steps that grow it."""
        pool: Any = self.pool
        steps: Steps = pool.resize(self.context(), self.now(volume), size_mb, await self.pool_facts())
        return steps

    async def fill(self, volume: Volume, archive: str) -> Steps:
        """The steps that unpack into it."""
        return self.pool.fill(self.context(), self.now(volume), archive, await self.pool_facts())

    async def remove(self, volume: Volume) -> Steps:
        """The steps that destroy it, at the generation of its last lease."""
        return self.pool.remove(self.context(), self.now(volume), await self.pool_facts())

    async def names(self) -> set[str]:
        """The volumes on the host."""
        return {entry.name for entry in self.pool.entries(self.context(), await self.pool_facts())}

    async def leftovers(self) -> set[str]:
        """What lies in the pool and is no volume."""
        return set(self.pool.leftovers(self.context(), await self.pool_facts()))

    # --- Steps of the export.

    async def authorize(self, volume: Volume, client: Client, generation: int) -> Steps:
        """The steps that grant access; with new secrets, which the client is told."""
        self.generations[volume.id] = max(generation, self.generations.get(volume.id, 0))
        told = self._told(volume, client)
        arguments = (self.context(), volume, self.where(volume), told, generation)
        return self.export.authorize(*arguments, await self.export_facts())

    async def revoke(self, volume: Volume, client: Client, generation: int) -> Steps:
        """The steps that take it back."""
        arguments = (self.context(), volume, self.where(volume), client, generation)
        return self.export.revoke(*arguments, await self.export_facts())

    async def withdraw(self, grant: Grant) -> Steps:
        """The steps that take back what no lease knows."""
        return self.export.withdraw(self.context(), grant, await self.export_facts())

    async def lend(self, volume: Volume, client: Client) -> Steps:
        """The steps that let one more machine read."""
        export: Any = self.export
        facts = await self.export_facts()
        steps: Steps = export.lend(
            self.context(), self.now(volume), self.where(volume), self._told(volume, client), facts
        )
        return steps

    async def reclaim(self, volume: Volume, client: Client) -> Steps:
        """The steps that take that back."""
        export: Any = self.export
        given = (self.context(), self.now(volume), self.where(volume), client)
        steps: Steps = export.reclaim(*given, await self.export_facts())
        return steps

    async def all_grants(self) -> list[Grant]:
        """Every grant on the host."""
        return list(self.export.grants(self.context(), await self.export_facts()))

    async def grants(self, volume: Volume) -> list[Grant]:
        """The grants of a volume on the host, for writing."""
        return [each for each in await self.all_grants() if each.volume == f"volume-{volume.id}" and each.writes]

    def _told(self, volume: Volume, client: Client) -> Client:
        """The client with a new secret for each that the export declares."""
        names = self.export_declared.secrets if self.export_declared else ()
        texts = {name: randomness.token_hex(16) for name in names}
        keys = {name: f"grant-{volume.id}-{name}-{next(_KEYS)}" for name in names}
        self.secrets.update({keys[name]: texts[name] for name in names})
        self.known[volume.id, client.resource_id] = texts
        return replace(client, secrets={name: Secret(key=keys[name]) for name in names})

    @property
    def has_secrets(self) -> bool:
        """Whether a client needs to know something that no other machine knows."""
        return bool(self.export_declared and self.export_declared.secrets)

    def wrong_secrets(self) -> dict[str, str]:
        """Secrets of the right shape that nobody was told."""
        return {
            name: randomness.token_hex(16) for name in (self.export_declared.secrets if self.export_declared else ())
        }
