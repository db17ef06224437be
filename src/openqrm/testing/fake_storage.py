"""A storage type on fake hosts: volumes are things with contents, grants are entries, all behind the fake gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openqrm.plugin_api.drivers import Cap, Grant, NoSettings, StorageContext, VolumeEntry
from openqrm.plugin_api.facts import Fact
from openqrm.plugin_api.steps import Command, Gate, Irreversible, Run
from openqrm.testing.fake_host import FakeHost, Handler, Request, done

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from openqrm.domain.storage import Storage, Volume
    from openqrm.engine.ports import Finished
    from openqrm.plugin_api.drivers import Client
    from openqrm.plugin_api.facts import Facts
    from openqrm.plugin_api.records import Reader
    from openqrm.plugin_api.steps import Steps

FAKE_TYPE: dict[str, Any] = {
    "own_machine": False,
    "in_memory": False,
    "start": "root",
    "secrets": ["psk"],
    "through": "",
    "capabilities": sorted(Cap),
}
"""What operations know of the type `fake`: it can do everything."""


def _pairs(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def _things_fact(context: StorageContext) -> Fact[list[list[str]]]:
    return Fact(name="things", host=context.host, argv=("list-things",), parse=_pairs)


def _grants_fact(context: StorageContext) -> Fact[list[list[str]]]:
    return Fact(name="grants", host=context.host, argv=("list-grants",), parse=_pairs)


class FakeExport:
    """Grants and revokes on a `FakeHosts` host, behind its gate."""

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        """The grants there are."""
        return (_grants_fact(context),)

    def grants(self, context: StorageContext, facts: Facts) -> Sequence[Grant]:
        """Ours, and those that somebody made by hand."""
        found = facts.get(_grants_fact(context))
        return [_grant(*words) for words in found]

    def authorize(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        """One gated step, undone by a gated revocation."""
        del location, facts
        return (
            Run(
                name="authorize",
                host=context.host,
                do=Command(argv=("grant", f"volume-{volume.id}", client.name)),
                undo=Command(argv=("revoke", f"volume-{volume.id}")),
                gate=Gate(volume=f"volume-{volume.id}", generation=generation),
            ),
        )

    def revoke(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        """One gated step."""
        del location, client, facts
        return (
            Run(
                name="revoke",
                host=context.host,
                do=Command(argv=("revoke", f"volume-{volume.id}")),
                undo=Command(argv=("echo", "a revocation is not undone")),
                gate=Gate(volume=f"volume-{volume.id}", generation=generation),
            ),
        )

    def withdraw(self, context: StorageContext, grant: Grant, facts: Facts) -> Steps:
        """One step, which names what was found."""
        del facts
        return (
            Run(
                name="withdraw",
                host=context.host,
                do=Command(argv=("withdraw", grant.location, grant.client)),
                undo=Irreversible(reason="nobody knows what it was for"),
            ),
        )

    def lend(self, context: StorageContext, volume: Volume, location: str, client: Client, facts: Facts) -> Steps:
        """One step, undone by its opposite."""
        del location, facts
        return (_lending(context, volume, client, "lend", "reclaim"),)

    def reclaim(self, context: StorageContext, volume: Volume, location: str, client: Client, facts: Facts) -> Steps:
        """One step."""
        del location, facts
        return (_lending(context, volume, client, "reclaim", None),)

    def lent(self, context: StorageContext, volume: Volume, location: str, client: Client) -> Mapping[str, str]:
        """As `attach`."""
        return self.attach(context, volume, location, client)

    def root_device(self, context: StorageContext, volume: Volume, location: str) -> str:
        """The location itself."""
        del context, volume
        return location

    def attach(self, context: StorageContext, volume: Volume, location: str, client: Client) -> Mapping[str, str]:
        """Nothing: fake machines mount nothing."""
        del context, volume, location, client
        return {}


def _lending(context: StorageContext, volume: Volume, client: Client, verb: str, undo: str | None) -> Run:
    words = (f"volume-{volume.id}", client.name)
    return Run(
        name=verb,
        host=context.host,
        do=Command(argv=(verb, *words)),
        undo=Command(argv=(undo, *words)) if undo else Irreversible(reason="it is lent anew, under a new loan"),
    )


def _grant(place: str, client: str, generation: str) -> Grant:
    if generation == "-":
        return Grant("", client, -1, place)
    if generation == "lent":
        return Grant(place, client, 0, place, writes=False)
    return Grant(place, client, int(generation), place)


class FakePool:
    """Makes and removes things on a `FakeHosts` host."""

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        """What there is."""
        return (_things_fact(context),)

    def entries(self, context: StorageContext, facts: Facts) -> Sequence[VolumeEntry]:
        """Whole things."""
        found = facts.get(_things_fact(context))
        return [VolumeEntry(name, int(size), f"/pool/{name}") for name, state, size in found if state == "whole"]

    def create(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """A thing with the volume's name."""
        del facts
        return (_thing(context, "make", volume, undo="unmake"),)

    def remove(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """The thing is unmade."""
        del facts
        return (_thing(context, "unmake", volume, undo="make"),)

    def clone(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """A thing of its own."""
        del source
        return self.create(context, volume, facts)

    def snapshot(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """A thing of its own, too."""
        del source
        return self.create(context, volume, facts)

    def resize(self, context: StorageContext, volume: Volume, size_mb: int, facts: Facts) -> Steps:
        """One gated step."""
        del facts
        return (
            Run(
                name="resize",
                host=context.host,
                do=Command(argv=("resize", volume.name, str(size_mb))),
                undo=Irreversible(reason="what has grown does not shrink"),
                gate=Gate(volume=f"volume-{volume.id}", generation=volume.generation),
            ),
        )

    def fill(self, context: StorageContext, volume: Volume, archive: str, facts: Facts) -> Steps:
        """Nothing to unpack into."""
        del context, volume, archive, facts
        return ()

    def location(self, context: StorageContext, volume: Volume) -> str:
        """A path by name."""
        del context
        return f"/pool/{volume.name}"

    def leftovers(self, context: StorageContext, facts: Facts) -> Sequence[str]:
        """Half things."""
        found = facts.get(_things_fact(context))
        return [f"/pool/{name}" for name, state, _ in found if state == "half"]


def _thing(context: StorageContext, verb: str, volume: Volume, *, undo: str) -> Run:
    return Run(
        name=verb,
        host=context.host,
        do=Command(argv=(verb, volume.name)),
        undo=Command(argv=(undo, volume.name)),
        gate=Gate(volume=f"volume-{volume.id}", generation=volume.generation),
    )


@dataclass(frozen=True)
class FakeDrivers:
    """Every storage is a fake pool with a fake export that proves revocations."""

    reader: Reader

    def pool(self, storage: Storage) -> FakePool:
        """The fake pool."""
        del storage
        return FakePool()

    def export(self, storage: Storage) -> FakeExport:
        """The fake export."""
        del storage
        return FakeExport()

    def context(self, storage: Storage, reader: Reader) -> StorageContext:
        """On the storage's own resource."""
        del reader
        return StorageContext(storage, storage.resource_id, "10.0.0.1", NoSettings(), NoSettings())

    def require(self, storage: Storage, capability: str) -> None:
        """Everything is declared."""
        Cap(capability)
        del storage


def _list_things(disk: FakeHost, request: Request) -> Iterator[Finished | None]:
    """`NAME whole|half SIZE` lines."""
    del request
    yield done("\n".join(f"{name} {state} {disk.sizes.get(name, 0)}" for name, state in disk.things.items()))


def _list_grants(disk: FakeHost, request: Request) -> Iterator[Finished | None]:
    """`VOLUME CLIENT GENERATION` or `VOLUME CLIENT lent` lines; `PLACE CLIENT -` for what was made by hand."""
    del request
    lent = [f"{volume} {client} lent" for volume, client in sorted(disk.lent)]
    ours = [f"{volume} {client} {generation}" for volume, (client, generation, _) in disk.grants.items()]
    by_hand = [f"{place} {client} -" for place, client in sorted(disk.foreign)]
    yield done("\n".join([*ours, *lent, *by_hand]))


def _withdraw(disk: FakeHost, request: Request) -> Iterator[Finished | None]:
    """`withdraw VOLUME|PLACE CLIENT`."""
    _, place, client = request.argv
    disk.foreign.discard((place, client))
    disk.lent.discard((place, client))
    if disk.grants.get(place, ("",))[0] == client:
        del disk.grants[place]
    yield None
    yield done()


def _lend(disk: FakeHost, request: Request) -> Iterator[Finished | None]:
    """`lend|reclaim VOLUME CLIENT`."""
    verb, volume, client = request.argv
    disk.lent.add((volume, client)) if verb == "lend" else disk.lent.discard((volume, client))
    yield None
    yield done()


def _resize(disk: FakeHost, request: Request) -> Iterator[Finished | None]:
    """`resize NAME MB`."""
    _, name, size = request.argv
    disk.sizes[name] = int(size)
    yield None
    yield done()


STORAGE_COMMANDS: dict[str, Handler] = {
    "list-things": _list_things,
    "list-grants": _list_grants,
    "withdraw": _withdraw,
    "lend": _lend,
    "reclaim": _lend,
    "resize": _resize,
}
"""What the fake storage's hosts can do beside what all fake hosts can."""
