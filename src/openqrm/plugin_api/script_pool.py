"""A pool driver made of one shell script: the shortest way to a storage type.

A plug-in has `scripts/pool` beside its code and a class that names its package:

    class ShelfPool(ScriptPool):
        package = "openqrm_shelf"

`scripts` may name more files than that one, for example parts of ours in front of it (`openqrm.plugin_api.scripts`).
It is run on the storage host as `pool VERB PLACE [NAME ID SIZE_MB [MORE]]`, where PLACE is `place` of the pool's
settings (`Placed`):

- `facts PLACE` changes nothing and says, one a line: `free_mb NUMBER`, `volume NAME [SIZE_MB [USED_MB]]` for each
  volume (with USED_MB: what it may still take of its size is not free for others), `leftover PATH` for what is none,
  `lacks CAPABILITY` for a declared one that this host has not, and `has WORD [VALUE]` for what else the class wants to
  know. It ends with `ABSENT` when PLACE is not there.
- `create`, `clone` (MORE: where the source is), `fill` (MORE: a tar archive), `remove`, and `undo` of the first three,
  which leaves alone what was not made for volume ID. They run behind the host gate, so never two at once for one
  volume; each is idempotent, and leaves the whole or nothing.

The script is told a volume's name, and the class where a volume of that name is: `place_of`, PLACE/NAME unless it says
otherwise. Both must mean the same place, and it follows from the name alone: a volume that is lost to the database and
found again has another id. So a name is there once in the whole pool.

Another verb is a line: `return (self.step(context, volume, "snapshot", self.location(context, source)),)`. The class of
a pool with Cap.RESIZE is a `ResizingScriptPool`; its script has the verb `resize` (MORE: MB).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from openqrm.domain.errors import ConflictError, InvalidError, NoCapacityError, OpenqrmError
from openqrm.domain.model import NAME_PATTERN
from openqrm.plugin_api.drivers import Placed, VolumeEntry, sized
from openqrm.plugin_api.facts import Fact
from openqrm.plugin_api.scripts import script
from openqrm.plugin_api.steps import Command, Gate, Irreversible, Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import Cap, StorageContext
    from openqrm.plugin_api.facts import Facts
    from openqrm.plugin_api.steps import Steps

ABSENT = 3
"""The status of `facts` when PLACE is not there."""
NOTES = "/var/lib/openqrm/pools"
"""Where a host notes that a directory is a pool (`shell/state`): an empty one that was a pool is not mounted."""
_IRREVERSIBLE = Irreversible(reason="the data is deleted")
_GROWN = Irreversible(reason="a file system is not shrunk; the room it got does no harm")


@dataclass(frozen=True)
class ScriptFacts:
    """What `facts` said; `volumes` are sizes in MB by name, 0 where a volume has none, and `used` what they take, where
    that was said. `has` is by word; a word without a value has an empty one."""

    free_mb: int
    volumes: dict[str, int]
    leftovers: tuple[str, ...]
    lacks: frozenset[str]
    has: Mapping[str, str]
    used: Mapping[str, int]

    @property
    def promised_mb(self) -> int:
        """What volumes may still take of the free space."""
        return sum(max(self.volumes[name] - used, 0) for name, used in self.used.items())


def parse(output: str) -> ScriptFacts:
    """The output of `facts`; what no volume can be named is none. ValueError for anything else."""
    said: dict[str, list[str]] = {"free_mb": [], "volume": [], "leftover": [], "lacks": [], "has": []}
    for line in output.splitlines():
        word, _, rest = line.partition(" ")
        if word not in said:
            raise ValueError(f"{line!r} is none of: {', '.join(said)}")
        said[word].append(rest)
    volumes = [words for words in (entry.split() for entry in said["volume"]) if _is_volume(words)]
    return ScriptFacts(
        free_mb=int(said["free_mb"][0]) if said["free_mb"] else 0,
        volumes={words[0]: int(words[1]) if len(words) > 1 else 0 for words in volumes},
        leftovers=tuple(said["leftover"]),
        lacks=frozenset(said["lacks"]),
        has={word: value for word, _, value in (entry.partition(" ") for entry in said["has"])},
        used={words[0]: int(words[2]) for words in volumes if len(words) > 2},
    )


def _is_volume(words: list[str]) -> bool:
    """A name, and its sizes if they are known; somebody's directory may have any name."""
    fits = 1 <= len(words) <= 3 and re.fullmatch(NAME_PATTERN, words[0]) is not None
    return fits and all(word.isdigit() for word in words[1:])


class ScriptPool:
    """Implements `PoolDriver`. `seconds` is what a copy or removal of a whole image may take, `when_full` what to do
    when there is no room."""

    package: ClassVar[str]
    scripts: ClassVar[tuple[str, ...]] = ("pool",)
    seconds: ClassVar[float] = 7200
    when_full: ClassVar[str] = "ask for less, or make room"

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        """One question: `facts PLACE`."""
        return (self.fact(context),)

    def confirms(self, capability: Cap, context: StorageContext, facts: Facts) -> bool:
        """Whether the place can be used, and the script did not say that this host lacks it."""
        try:
            return str(capability) not in self.there(context, facts).lacks
        except OpenqrmError:
            return False

    def entries(self, context: StorageContext, facts: Facts) -> Sequence[VolumeEntry]:
        """The volumes there are."""
        found = self.there(context, facts).volumes
        return [VolumeEntry(name, size, self.place_of(context, name)) for name, size in found.items()]

    def leftovers(self, context: StorageContext, facts: Facts) -> Sequence[str]:
        """What lies in the pool and is no volume."""
        return self.there(context, facts).leftovers

    def create(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """An empty volume, `sized`. NoCapacityError, ConflictError when the place is not there."""
        volume = sized(volume, context.pool)
        self.room(context, volume, facts)
        return (self.step(context, volume, "create"),)

    def clone(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """A copy. NoCapacityError, ConflictError when the place is not there."""
        self.room(context, volume, facts)
        return (self.step(context, volume, "clone", self.location(context, source)),)

    def fill(self, context: StorageContext, volume: Volume, archive: str, facts: Facts) -> Steps:
        """An archive's content. ConflictError when the place is not there."""
        self.there(context, facts)
        return (self.step(context, volume, "fill", archive),)

    def remove(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """Nothing is left of it. ConflictError when the place is not there."""
        self.there(context, facts)
        return (self.step(context, volume, "remove", undo=_IRREVERSIBLE),)

    @final
    def location(self, context: StorageContext, volume: Volume) -> str:
        """Where the volume is; a class that keeps its volumes elsewhere says so by `place_of`."""
        return self.place_of(context, volume.name)

    def step(
        self,
        context: StorageContext,
        volume: Volume,
        verb: str,
        *more: str,
        undo: Command | Irreversible | None = None,
    ) -> Run:
        """One run of the script behind the gate; undone by its `undo` unless said otherwise."""
        return Run(
            name=verb,
            title=f"{verb.capitalize()} {self.location(context, volume)}",
            host=context.host,
            do=self.command(context, volume, verb, *more),
            undo=undo or self.command(context, volume, "undo"),
            gate=Gate(volume=f"volume-{volume.id}", generation=volume.generation),
            timeout=self.seconds,
        )

    def command(self, context: StorageContext, volume: Volume, verb: str, *more: str) -> Command:
        """The script's call for a verb."""
        words = (verb, self.place(context), volume.name, str(volume.id), str(volume.size_mb), *more)
        return Command(argv=("sh", "-s", "--", *words), input=script(self.package, *self.scripts))

    def absent(self, context: StorageContext) -> OpenqrmError:
        """What is raised when the place is not there, or cannot be used."""
        place = self.place(context)
        there = (name for name in type(context.pool).model_fields if getattr(context.pool, name) == place)
        return ConflictError(
            f"storage {context.storage.name}: there is no pool in {place} on its host, or it is not mounted",
            field=next(there, None),
            remedy=(
                f"mount its file system there, or make it: mkdir -p {place}; "
                f"of one that was emptied on purpose the host has a note in {NOTES}, which goes with it"
            ),
        )

    def place_of(self, context: StorageContext, name: str) -> str:
        """Where a volume of that name is: `PLACE/NAME`, unless a class says otherwise."""
        return f"{self.place(context)}/{name}"

    def fact(self, context: StorageContext) -> Fact[ScriptFacts | None]:
        """The question: what the script says to `facts`; None when the place is not there."""
        return Fact(
            name="pool",
            host=context.host,
            argv=("sh", "-c", script(self.package, *self.scripts), "pool", "facts", self.place(context)),
            parse=parse,
            absent=(ABSENT,),
        )

    @staticmethod
    def place(context: StorageContext) -> str:
        """Where the pool is, by its settings: what the script is told as PLACE."""
        assert isinstance(context.pool, Placed)  # noqa: S101  # `openqrm plugin check` sees to it
        return context.pool.place

    def there(self, context: StorageContext, facts: Facts) -> ScriptFacts:
        """What the script said. The error of `absent` when the place is not there."""
        found = facts.get(self.fact(context))
        if found is None:
            raise self.absent(context)
        return found

    def room(
        self, context: StorageContext, volume: Volume, facts: Facts, size_mb: int | None = None, now_mb: int = 0
    ) -> None:
        """Raise NoCapacityError unless `size_mb`, the volume's unless given, fit in place of `now_mb`.

        The error of `absent` when the place is not there.
        """
        found = self.there(context, facts)
        asked = volume.size_mb if size_mb is None else size_mb
        if asked - now_mb > found.free_mb - found.promised_mb:
            more = f"{asked - now_mb} MB more" if now_mb else f"{asked} MB"
            promised = f", of which its volumes may still take {found.promised_mb} MB" if found.promised_mb else ""
            raise NoCapacityError(
                f"volume {volume.name} asks for {more}; storage {context.storage.name} has {found.free_mb} MB "
                f"free{promised}",
                field="size_mb",
                remedy=self.when_full,
            )


class ResizingScriptPool(ScriptPool):
    """A pool with Cap.RESIZE."""

    def resize(self, context: StorageContext, volume: Volume, size_mb: int, facts: Facts) -> Steps:
        """A larger volume, with what is in it. InvalidError for a smaller one, NoCapacityError."""
        now = self.there(context, facts).volumes.get(volume.name, 0)
        if size_mb < now:
            raise InvalidError(
                f"volume {volume.name} has {now} MB and cannot shrink to {size_mb} MB",
                field="size_mb",
                remedy="make a smaller volume and move the image there",
            )
        self.room(context, volume, facts, size_mb, now)
        return (self.step(context, volume, "resize", str(size_mb), undo=self.back(context, volume, now)),)

    def back(self, context: StorageContext, volume: Volume, now_mb: int) -> Command | Irreversible:
        """How a volume gets the size again that it had; it does not, unless a class says otherwise."""
        del context, volume, now_mb
        return _GROWN
