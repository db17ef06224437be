"""A storage type that needs nothing but a directory: shows the conformance suite at work, and is broken on purpose."""

# ruff: noqa: ARG002  # a driver has the arguments of its protocol

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from openqrm.domain.errors import InvalidError, NoCapacityError
from openqrm.plugin_api.drivers import Cap, Export, Grant, Medium, Pool, StorageContext, VolumeEntry
from openqrm.plugin_api.facts import Fact
from openqrm.plugin_api.plugin import Family, Plugin
from openqrm.plugin_api.steps import Command, Gate, Irreversible, Run
from openqrm.testing.toy_storage import scripts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import Client
    from openqrm.plugin_api.facts import Facts
    from openqrm.plugin_api.steps import Steps


class ToySettings(BaseModel):
    """Where the volumes are."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    directory: str

    @property
    def place(self) -> str:
        """The directory."""
        return self.directory


class ToyExportSettings(BaseModel):
    """Where the server listens, and keeps its grants."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    port: int
    grants: str


@dataclass(frozen=True)
class PoolState:
    """What the pool's fact says."""

    free_mb: int
    file_system: str
    volumes: dict[str, int]
    leftovers: tuple[str, ...]


def parse_pool(output: str) -> PoolState:
    """The output of `FACTS`."""
    lines = [line.split() for line in output.splitlines()]
    single = {line[0]: line[1] for line in lines}
    volumes = {line[1]: int((*line, "0")[2]) for line in lines if line[0] == "volume"}
    left = tuple(line[1] for line in lines if line[0] == "leftover")
    return PoolState(int(single["free"]), single["type"], volumes, left)


class ToyPool:
    """Directories."""

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        argv = ("sh", "-c", scripts.FACTS, "facts", _pool(context).place)
        return (Fact("toy-pool", context.host, argv, parse_pool),)

    def confirms(self, capability: Cap, context: StorageContext, facts: Facts) -> bool:
        return capability not in (Cap.CLONE_COW, Cap.SNAPSHOT) or self.state(facts).file_system == "btrfs"

    def entries(self, context: StorageContext, facts: Facts) -> Sequence[VolumeEntry]:
        place = _pool(context).place
        return [VolumeEntry(name, size, f"{place}/{name}") for name, size in self.state(facts).volumes.items()]

    def leftovers(self, context: StorageContext, facts: Facts) -> Sequence[str]:
        return self.state(facts).leftovers

    def create(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        self.room(volume.size_mb, facts)
        return self.run(context, volume, "create", size=volume.size_mb)

    def clone(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        return self.run(context, volume, "clone", self.location(context, source))

    def snapshot(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        return self.clone(context, source, volume, facts)

    def fill(self, context: StorageContext, volume: Volume, archive: str, facts: Facts) -> Steps:
        return self.run(context, volume, "fill", archive)

    def resize(self, context: StorageContext, volume: Volume, size_mb: int, facts: Facts) -> Steps:
        now = self.state(facts).volumes.get(volume.name, 0)
        if size_mb < now:
            raise InvalidError("it does not shrink", field="size_mb")
        self.room(size_mb - now, facts)
        return self.run(context, volume, "resize", size=size_mb)

    def remove(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        return self.run(context, volume, "remove")

    def location(self, context: StorageContext, volume: Volume) -> str:
        return f"{_pool(context).place}/{volume.name}"

    def state(self, facts: Facts) -> PoolState:
        found = facts["toy-pool"]
        assert isinstance(found, PoolState)  # noqa: S101  # the fact's parser made it
        return found

    def room(self, size_mb: int, facts: Facts) -> None:
        if size_mb > self.state(facts).free_mb:
            raise NoCapacityError("the pool has less", field="size_mb")

    def run(self, context: StorageContext, volume: Volume, verb: str, *more: str, size: int = 0) -> Steps:
        words = (_pool(context).place, volume.name, str(volume.id), str(size), *more)
        command, undo = (
            Command(argv=("sh", "-s", "--", *words), input=scripts.POOL + scripts.SCRIPTS[which])
            for which in (verb, "undo")
        )
        gone = Irreversible(reason="the data is deleted") if verb == "remove" else undo
        gate = Gate(volume=f"volume-{volume.id}", generation=volume.generation)
        return (Run(name=verb, host=context.host, do=command, undo=gone, gate=gate),)


class ToyExport:
    """Grants as files of a server that reads them."""

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        command = self.command(context, "list", "", "", "", 0)
        argv = ("python3", "-c", str(command.input), *(str(word) for word in command.argv[2:]))
        return (Fact("toy-export", context.host, argv, lambda text: [json.loads(one) for one in text.splitlines()]),)

    def grants(self, context: StorageContext, facts: Facts) -> Sequence[Grant]:
        found: Any = facts["toy-export"]
        return [
            Grant(
                volume=f"volume-{one['volume']}" if one["ours"] else "",
                client=one["client"],
                generation=one["generation"] if one["ours"] else -1,
                location=one["path"],
                writes=one["writes"],
            )
            for one in found
        ]

    def authorize(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        if not client.address:
            raise InvalidError("no address")
        return self.run(context, "authorize", "revoke", volume, location, client, generation)

    def revoke(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        return self.run(context, "revoke", "", volume, location, client, generation)

    def lend(self, context: StorageContext, volume: Volume, location: str, client: Client, facts: Facts) -> Steps:
        return self.run(context, "lend", "reclaim", volume, location, client, volume.generation)

    def reclaim(self, context: StorageContext, volume: Volume, location: str, client: Client, facts: Facts) -> Steps:
        return self.run(context, "reclaim", "", volume, location, client, volume.generation)

    def withdraw(self, context: StorageContext, grant: Grant, facts: Facts) -> Steps:
        command = self.command(context, "withdraw", "", grant.location, grant.client, 0)
        gone = Irreversible(reason="nobody was to have it")
        return (Run(name="withdraw", host=context.host, do=command, undo=gone),)

    def root_device(self, context: StorageContext, volume: Volume, location: str) -> str:
        return location

    def attach(self, context: StorageContext, volume: Volume, location: str, client: Client) -> Mapping[str, str]:
        return {"ROOT_PORT": str(_export(context).port), "ROOT_PATH": location}

    def lent(self, context: StorageContext, volume: Volume, location: str, client: Client) -> Mapping[str, str]:
        return self.attach(context, volume, location, client)

    def run(
        self,
        context: StorageContext,
        verb: str,
        undo: str,
        volume: Volume,
        location: str,
        client: Client,
        generation: int,
    ) -> Steps:
        """A secret goes into a file of mode 0600 first: a script cannot hold what the engine fills in."""
        words = (str(volume.id), location, client.address, generation)
        do = self.command(context, verb, *words)
        back = self.command(context, undo, *words) if undo else Irreversible(reason="it is granted anew")
        gate = Gate(volume=f"volume-{volume.id}", generation=generation)
        steps = [Run(name=verb, host=context.host, do=do, undo=back, gate=gate)]
        if "key" in client.secrets and verb in ("authorize", "lend"):
            file = f"{_export(context).grants}/.key-{volume.id}-{client.address}"
            keep = Command(argv=("sh", "-c", 'umask 077; cat >"$1"', "sh", file), input=client.secrets["key"])
            drop = Command(argv=("rm", "-f", file))
            steps.insert(0, Run(name="key", host=context.host, do=keep, undo=drop, gate=gate))
        return tuple(steps)

    def command(
        self, context: StorageContext, verb: str, volume: str, location: str, client: str, generation: int
    ) -> Command:
        settings = _export(context)
        words = (str(settings.port), settings.grants, verb, volume, location, client, str(generation))
        return Command(argv=("python3", "-", *words), input=scripts.EXPORT + scripts.EXPORTS[verb])


def _pool(context: StorageContext) -> ToySettings:
    assert isinstance(context.pool, ToySettings)  # noqa: S101  # the declaration's spec
    return context.pool


def _export(context: StorageContext) -> ToyExportSettings:
    assert isinstance(context.export, ToyExportSettings)  # noqa: S101  # the declaration's spec
    return context.export


_POOL = frozenset({Cap.CLONE, Cap.CLONE_COW, Cap.FILL, Cap.SNAPSHOT, Cap.RESIZE, Cap.LIST})
_EXPORT = frozenset({Cap.AUTHORIZE, Cap.REVOKE_PROOF, Cap.SHARED, Cap.LEND})
PLUGIN = Plugin(
    name="toy-storage",
    family=Family.STORAGE,
    title="Toy storage",
    summary="Directories over a protocol of its own",
    module=__package__ or "",
    provides=(
        Pool(name="toy", medium=Medium.TREE, capabilities=_POOL, driver=f"{__name__}:ToyPool", spec=ToySettings),
        Export(
            name="toy",
            medium=Medium.TREE,
            deployment="toy-root",
            capabilities=_EXPORT,
            driver=f"{__name__}:ToyExport",
            spec=ToyExportSettings,
            secrets=("key",),
        ),
    ),
)
