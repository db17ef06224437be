"""What the conformance suites of storage work on: a pool, joined with an export or alone, on one real host.

    subject = Subject.join(lvm.PLUGIN, "lvm", iscsi.PLUGIN, "iscsi", hosts=hosts, host=1, address="10.99.0.2",
                           dead_host=2, clients=clients, access=IscsiAccess(machines), restart=restart,
                           settings={"group": "openqrm"})
    subject = Subject.alone(btrfs.PLUGIN, "btrfs", hosts=hosts, …)          # for PoolSuite

The halves may come from different plug-ins. The subject knows their medium: `put_mark`, `mark`, `counter`, `fill_up`
and `look` do the same on a tree and on a block device.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn, Self

import pytest

from openqrm.domain.errors import CommandFailedError
from openqrm.domain.storage import Storage, Volume
from openqrm.engine.ports import Ready
from openqrm.plugin_api.drivers import Medium, NoSettings, Placed, StorageContext, StorageType, confirmed
from openqrm.plugin_api.loading import load
from openqrm.testing.cases import provided_export, provided_pool
from openqrm.testing.steps import StepRunner
from openqrm.testing.storage_content import ContentOfVolumes
from openqrm.testing.storage_plans import SubjectPlans

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from openqrm.engine.ports import Hosts
    from openqrm.plugin_api.drivers import Cap, Client, Export, ExportDriver, Pool, PoolDriver
    from openqrm.plugin_api.plugin import Plugin
    from openqrm.testing.access import Access

_IDS = itertools.count(1)
SMALL_MB = 160
SIZE_MB = 32
"""Of a volume on a BLOCK pool unless a test says otherwise; a tree has no size."""


@dataclass
class Subject(SubjectPlans):
    """A pool, or a pool joined with an export, on one real host.

    `dead_host` is a resource that does not answer. `clients` are at least two machines and `access` is what they do.
    `restart` restarts the host's export software (and for a machine may restart all of it) and waits until it serves.
    `set_host_link` cuts the storage host off the network, or brings it back. `crash` pulls its plug, and waits until it
    is up again and serves. `grant_by_hand` (location, client) lets a client write to what is there, as an operator at
    the host's shell would, also beside a grant of ours. `small_settings` are those of a storage on the same host whose
    pool has about SMALL_MB, on a place of its own. `used_kb` tells what the pool really uses, where the file system
    that holds the volume's location does not. Tests that need what is None are skipped, and say so.

    `host_kind`, `packages` (Debian's, of the software that does the work; `linux` for the host's kernel) and `variant`
    (what tells two runs of one type apart, such as `ganesha` and `kernel`) are for the report.
    """

    name: str
    pool_declared: Pool
    export_declared: Export | None
    hosts: Hosts
    host: int
    address: str
    dead_host: int
    clients: tuple[Client, ...] = ()
    access: Access | None = None
    restart: Callable[[], Awaitable[None]] | None = None
    set_host_link: Callable[[bool], None] | None = None
    crash: Callable[[], Awaitable[None]] | None = None
    grant_by_hand: Callable[[str, Client], Awaitable[None]] | None = None
    small_settings: dict[str, object] | None = None
    used_kb: Callable[[], Awaitable[int]] | None = None
    host_kind: str = "namespace host"
    packages: tuple[str, ...] = ()
    variant: str = ""
    modules: tuple[str, ...] = ()
    """The packages of the plug-ins given, for the report."""
    skipped: str = ""
    settings: dict[str, object] = field(default_factory=dict)
    generations: dict[int, int] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    """What the store of a controller would hold: texts by key."""
    known: dict[tuple[int, int], dict[str, str]] = field(default_factory=dict)
    """The secrets a client was told last, by name; the key is the volume's id and the client's resource."""

    @classmethod
    def join(  # two halves, and what is known of the host
        cls, pool_plugin: Plugin, pool: str, export_plugin: Plugin, export: str, *others: Plugin, **given: Any
    ) -> Self:
        """A pool of one plug-in with an export of another; `others` where the export goes through one of theirs."""
        plugins = (pool_plugin, export_plugin, *others)
        declared = provided_pool(plugins, pool)
        assert declared is not None, f"no plug-in given provides pool {pool}"  # noqa: S101
        exported = provided_export(plugins, export)
        assert exported is not None, f"no plug-in given provides export {export}"  # noqa: S101
        kinds = [one for plugin in plugins for one in plugin.provides if isinstance(one, StorageType)]
        named = [one.name for one in kinds if (one.pool, one.export) == (pool, export)]
        return cls((named or [f"{declared.prefix or pool}-{export}"])[0], declared, exported, **_of(plugins, given))

    @classmethod
    def alone(cls, plugin: Plugin, pool: str, **given: Any) -> Self:
        """A pool without export."""
        declared = provided_pool((plugin,), pool)
        assert declared is not None, f"{plugin.name} provides no pool {pool}"  # noqa: S101
        return cls(pool, declared, None, **_of((plugin,), given))

    def __post_init__(self) -> None:
        """Load the drivers."""
        self.pool: PoolDriver = load(self.pool_declared.driver)()
        exported = self.export_declared
        driver: Any = load(exported.driver)() if exported is not None else None
        self.export: ExportDriver = driver
        self.declared = self.pool_declared.capabilities | (exported.capabilities if exported else frozenset())
        self.medium = self.pool_declared.medium
        self.runner = self.other_runner("controller")
        self.content = ContentOfVolumes(self.shell, self.medium)

    def other_runner(self, name: str, epoch: int = 1) -> StepRunner:
        """The hands of another controller, which knows the same secrets."""
        return StepRunner(self.hosts, epoch=epoch, name=name, secrets=self.secrets)

    # --- What the drivers are given.

    def context(self, host: int | None = None) -> StorageContext:
        """The storage as its drivers see it."""
        number = self.host if host is None else host
        storage = Storage(id=1, name="store", type=self.name, resource_id=number, settings=self.settings)
        pool, export = (
            side.spec(**{key: value for key, value in self.settings.items() if key in side.spec.model_fields})
            if side is not None
            else NoSettings()
            for side in (self.pool_declared, self.export_declared)
        )
        return StorageContext(storage, number, self.address, pool, export)

    def volume(self, size_mb: int | None = None, name: str = "") -> Volume:
        """A volume of an id that no other test has, and of such a name."""
        number = next(_IDS) + time.time_ns() // 1_000_000 % 1_000_000_000 * 1000
        usual = SIZE_MB if self.medium is Medium.BLOCK else 0
        size = usual if size_mb is None else size_mb
        return Volume(id=number, name=name or f"v{number}", storage_id=1, size_mb=size)

    @property
    def is_block(self) -> bool:
        """Whether volumes are devices, which have a size."""
        return self.medium is Medium.BLOCK

    @property
    def place(self) -> str:
        """Where the pool's volumes are: a directory, volume group or dataset."""
        settings = self.context().pool
        assert isinstance(settings, Placed), "a pool's settings have `place`"  # noqa: S101
        return settings.place

    def small(self) -> Self:
        """The same on the small pool."""
        self.needs("small_settings")
        return replace(self, settings=dict(self.small_settings or {}))

    # --- What client machines do.

    def attach(self, volume: Volume, client: Client) -> Mapping[str, str]:
        """What a client is told of a volume, without the secrets. The record of it has its last generation by then."""
        return self.export.attach(self.context(), self.now(volume), self.where(volume), client)

    def lent(self, volume: Volume, client: Client) -> Mapping[str, str]:
        """What a client is told of a volume that it is lent."""
        export: Any = self.export
        found: Mapping[str, str] = export.lent(self.context(), volume, self.where(volume), client)
        return found

    def told(self, volume: Volume, client: Client) -> dict[str, str]:
        """The secrets a client was told last; wrong ones when it never was."""
        return self.known.get((volume.id, client.resource_id)) or self.wrong_secrets()

    @property
    def uses(self) -> Access:
        """`access`; AssertionError when the test gave none."""
        assert self.access is not None, "the fixture gives no access"  # noqa: S101
        return self.access

    async def reads(self, client: Client, volume: Volume) -> str | None:
        """The mark as a client reads it with what it was told last; None when it is refused."""
        given = (self.attach(volume, client), self.told(volume, client))
        return await asyncio.to_thread(self.uses.read, client, *given)

    def start_counting(self, client: Client, volume: Volume) -> Callable[[], None]:
        """A client writes without end, with what it was told last; returns what ends it."""
        return self.uses.start_counting(client, self.attach(volume, client), self.told(volume, client))

    # --- What a test does on the host itself.

    async def shell(self, script: str, *words: str, seconds: float = 120) -> str:
        """Run a script on the host, for what a test prepares or looks at; its output."""
        ready = Ready(("sh", "-ec", script, "sh", *words))
        done = await self.hosts.run(self.host, ready, gate=None, seconds=seconds)
        if done.status:
            raise CommandFailedError(done.stderr, exit_status=done.status, output=done.stdout)
        return done.stdout

    async def put_mark(self, volume: Volume, text: str) -> None:
        """Put a text into the volume where clients read it."""
        await self.content.put_mark(self.where(volume), text)

    async def mark(self, volume: Volume) -> str:
        """That text, as it is on the disk."""
        return await self.content.mark(self.where(volume))

    async def counter(self, volume: Volume) -> str:
        """What a counting client wrote last, as it is on the disk; empty before that."""
        return await self.content.counter(self.where(volume))

    async def in_tree(self, volume: Volume, script: str, *words: str) -> str:
        """Run a script with the volume's tree as `$1`; of a BLOCK volume the file system that `fill` made."""
        return await self.content.in_tree(self.where(volume), script, *words)

    async def made(self, content: str = "content", size_mb: int | None = None) -> Volume:
        """A volume that is there, with a mark in it."""
        volume = self.volume(size_mb)
        await self.runner.do(await self.create(volume))
        await self.put_mark(volume, content)
        return volume

    async def filled(self, script: str, size_mb: int | None = None) -> Volume:
        """A volume that was filled from an archive of what a script makes in its current directory."""
        volume = self.volume(size_mb)
        archive = await self.content.archive(script)
        await self.runner.do(await self.create(volume))
        await self.runner.do(await self.fill(volume, archive))
        await self.shell('rm -rf "$(dirname "$1")"', archive)
        return volume

    async def drop(self, *volumes: Volume) -> None:
        """Remove volumes at a test's end."""
        for volume in volumes:
            await self.runner.do(await self.remove(volume))

    def skip(self, reason: str) -> NoReturn:
        """End the test here; the reason is for its record too."""
        self.skipped = reason
        pytest.skip(f"{self.name}: {reason}")

    def needs(self, name: str) -> None:
        """Skip what the fixture gives no means for."""
        if getattr(self, name) is None:
            self.skip(f"the fixture gives no {name}")

    async def forget_connections(self) -> None:
        """What a controller has open to the host is lost to it."""
        forget = getattr(self.hosts, "forget", None)
        if forget is not None:
            await forget(self.host)

    async def pool_uses_kb(self, volume: Volume) -> int:
        """Kilobytes of the pool that are in use, after all is on the disk."""
        if self.used_kb is not None:
            return await self.used_kb()
        where = self.where(volume)
        device = await self.shell('[ -b "$1" ] && echo yes || echo no', where)
        if device.strip() == "yes":
            self.skip("its volumes are devices, and the fixture gives no used_kb")
        return int(await self.shell('sync -f "$1"; df -kP "$1" | awk \'NR == 2 { print $3 }\'', where))

    def require(self, *capabilities: Cap) -> None:
        """Skip what the type does not declare."""
        for capability in capabilities:
            if capability not in self.declared:
                self.skip(f"it does not declare {capability}")

    async def has(self, capability: Cap) -> bool:
        """Whether it is declared, and the driver says that this host has it."""
        if capability not in self.declared:
            return False
        of_pool = capability in self.pool_declared.capabilities
        facts = await self.pool_facts() if of_pool else await self.export_facts()
        return confirmed(self.pool if of_pool else self.export, capability, self.context(), facts)

    async def confirm(self, capability: Cap) -> None:
        """Skip what the type does not declare, or declares and this host has not, as the driver says."""
        self.require(capability)
        if not await self.has(capability):
            self.skip(f"this host has no {capability}, and the driver says so")


def _of(plugins: tuple[Plugin, ...], given: dict[str, Any]) -> dict[str, Any]:
    return {"modules": tuple(plugin.module for plugin in plugins)} | given
