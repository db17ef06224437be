"""A pool driver made of one shell script: the shortest way to a storage type.

A plug-in has `scripts/pool` beside its code and a class that names its package:

    class ShelfPool(ScriptPool):
        package = "openqrm_shelf"

`scripts` may name more files than that one, for example parts of ours in front of it (`openqrm.plugin_api.scripts`).
It is run on the storage host as `pool VERB PLACE [NAME ID SIZE_MB [MORE]]`, where PLACE is `place` of the pool's
settings (`Placed`):

- `facts PLACE` changes nothing and says, one a line: `free_mb NUMBER`, `volume NAME [SIZE_MB]` for each volume,
  `leftover PATH` for what is none, and `lacks CAPABILITY` for a declared one that this host has not. It ends with
  `ABSENT` when PLACE is not there.
- `create`, `clone` (MORE: where the source is), `fill` (MORE: a tar archive), `remove`, and `undo` of the first three,
  which leaves alone what was not made for volume ID. They run behind the host gate, so never two at once for one
  volume; each is idempotent, and leaves the whole or nothing.

Another verb is a line: `return (self.step(context, volume, "snapshot", self.location(context, source)),)`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from openqrm.domain.errors import ConflictError, NoCapacityError
from openqrm.domain.model import NAME_PATTERN
from openqrm.plugin_api.drivers import Placed, VolumeEntry
from openqrm.plugin_api.facts import Fact
from openqrm.plugin_api.scripts import script
from openqrm.plugin_api.steps import Command, Gate, Irreversible, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import Cap, StorageContext
    from openqrm.plugin_api.facts import Facts
    from openqrm.plugin_api.steps import Steps

ABSENT = 3
"""The status of `facts` when PLACE is not there."""
_IRREVERSIBLE = Irreversible(reason="the data is deleted")


@dataclass(frozen=True)
class ScriptFacts:
    """What `facts` said; `volumes` are sizes in MB by name, 0 where a volume has none."""

    free_mb: int
    volumes: dict[str, int]
    leftovers: tuple[str, ...]
    lacks: frozenset[str]


def parse(output: str) -> ScriptFacts:
    """The output of `facts`; what no volume can be named is none. ValueError for anything else."""
    said: dict[str, list[str]] = {"free_mb": [], "volume": [], "leftover": [], "lacks": []}
    for line in output.splitlines():
        word, _, rest = line.partition(" ")
        if word not in said:
            raise ValueError(f"{line!r} is none of: {', '.join(said)}")
        said[word].append(rest)
    volumes = [words for words in (entry.split() for entry in said["volume"]) if _is_volume(words)]
    return ScriptFacts(
        free_mb=int(said["free_mb"][0]) if said["free_mb"] else 0,
        volumes={words[0]: int(words[1]) if len(words) == 2 else 0 for words in volumes},
        leftovers=tuple(said["leftover"]),
        lacks=frozenset(said["lacks"]),
    )


def _is_volume(words: list[str]) -> bool:
    """A name, and its size if that is known; somebody's directory may have any name."""
    fits = 1 <= len(words) <= 2 and re.fullmatch(NAME_PATTERN, words[0]) is not None
    return fits and (len(words) == 1 or words[1].isdigit())


class ScriptPool:
    """Implements `PoolDriver`. `seconds` is what a copy or removal of a whole image may take."""

    package: ClassVar[str]
    scripts: ClassVar[tuple[str, ...]] = ("pool",)
    seconds: ClassVar[float] = 7200

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        """One question: `facts PLACE`."""
        return (self._fact(context),)

    def confirms(self, capability: Cap, context: StorageContext, facts: Facts) -> bool:
        """Whether the script did not say that this host lacks it."""
        found = facts.get(self._fact(context))
        return found is not None and str(capability) not in found.lacks

    def entries(self, context: StorageContext, facts: Facts) -> Sequence[VolumeEntry]:
        """The volumes there are."""
        found = self._there(context, facts).volumes
        return [VolumeEntry(name, size, f"{self._place(context)}/{name}") for name, size in found.items()]

    def leftovers(self, context: StorageContext, facts: Facts) -> Sequence[str]:
        """What lies in the pool and is no volume."""
        return self._there(context, facts).leftovers

    def create(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """An empty volume. NoCapacityError, ConflictError when the place is not there."""
        self._room(context, volume, facts)
        return (self.step(context, volume, "create"),)

    def clone(self, context: StorageContext, source: Volume, volume: Volume, facts: Facts) -> Steps:
        """A copy. NoCapacityError, ConflictError when the place is not there."""
        self._room(context, volume, facts)
        return (self.step(context, volume, "clone", self.location(context, source)),)

    def fill(self, context: StorageContext, volume: Volume, archive: str, facts: Facts) -> Steps:
        """An archive's content. ConflictError when the place is not there."""
        self._there(context, facts)
        return (self.step(context, volume, "fill", archive),)

    def remove(self, context: StorageContext, volume: Volume, facts: Facts) -> Steps:
        """Nothing is left of it. ConflictError when the place is not there."""
        self._there(context, facts)
        return (self.step(context, volume, "remove", undo=_IRREVERSIBLE),)

    def location(self, context: StorageContext, volume: Volume) -> str:
        """`PLACE/NAME`."""
        return f"{self._place(context)}/{volume.name}"

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
        words = (verb, self._place(context), volume.name, str(volume.id), str(volume.size_mb), *more)
        return Command(argv=("sh", "-s", "--", *words), input=script(self.package, *self.scripts))

    def _fact(self, context: StorageContext) -> Fact[ScriptFacts | None]:
        return Fact(
            name="pool",
            host=context.host,
            argv=("sh", "-c", script(self.package, *self.scripts), "pool", "facts", self._place(context)),
            parse=parse,
            absent=(ABSENT,),
        )

    @staticmethod
    def _place(context: StorageContext) -> str:
        assert isinstance(context.pool, Placed)  # noqa: S101  # `openqrm plugin check` sees to it
        return context.pool.place

    def _there(self, context: StorageContext, facts: Facts) -> ScriptFacts:
        found = facts.get(self._fact(context))
        if found is None:
            raise ConflictError(
                f"storage {context.storage.name}: there is no {self._place(context)} on its host",
                remedy="make it there, or mount it: a volume must not come to lie below a mount point",
            )
        return found

    def _room(self, context: StorageContext, volume: Volume, facts: Facts) -> None:
        free = self._there(context, facts).free_mb
        if volume.size_mb > free:
            raise NoCapacityError(
                f"volume {volume.name} asks for {volume.size_mb} MB; storage {context.storage.name} has {free} MB free",
                field="size_mb",
            )
