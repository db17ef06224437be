"""Names and sizes at their limits, and a pool that is really full. Part of the conformance suite of pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openqrm.domain.errors import CommandFailedError, InvalidError, NoCapacityError
from openqrm.plugin_api.drivers import Cap
from openqrm.testing.storage_subject import SMALL_MB

if TYPE_CHECKING:
    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.steps import Steps
    from openqrm.testing.storage_subject import Subject

BEYOND_MB = 100 << 20
"""100 TB: more than any pool of a test has."""
_TOO_MUCH = f"for number in $(seq {SMALL_MB // 8}); do head -c 16M /dev/urandom >file$number; done"
"""Twice what the small pool has."""


class PoolLimitSuite:
    """Inherit and provide the fixture `subject`."""

    async def test_names_at_their_limits(self, subject: Subject) -> None:
        """One letter, 63 letters, digits and dashes: each a volume of its own that can be copied and removed."""
        number = subject.volume().name
        long = f"{number}-{'x' * 63}"[:62]
        names = ("a", f"{long}y", f"{long}z", f"0-{number}-9")
        there = await subject.names()
        volumes = [subject.volume(name=name) for name in names if name not in there]
        for volume in volumes:
            await subject.runner.do(await subject.create(volume))
            await subject.put_mark(volume, volume.name)
        assert {volume.name for volume in volumes} <= await subject.names()
        for volume in volumes:
            assert await subject.mark(volume) == volume.name
        copy = subject.volume(name=f"{long}c")
        if Cap.CLONE in subject.declared:
            await subject.runner.do(await subject.clone(volumes[-2], copy))
            assert await subject.mark(copy) == volumes[-2].name
            await subject.drop(copy)
        await subject.drop(*volumes)
        assert await subject.names() == there

    @pytest.mark.parametrize("size_mb", [0, 1, 3])
    async def test_the_smallest_sizes(self, subject: Subject, size_mb: int) -> None:
        """Made, and not smaller than asked for; or refused with the field that is wrong. Nothing else."""
        volume = subject.volume(size_mb)
        steps, refused = await self._planned(subject, volume)
        if refused is not None:
            assert refused.field == "size_mb"
            return
        await subject.runner.do(steps)
        entries = subject.pool.entries(subject.context(), await subject.pool_facts())
        found = next(entry for entry in entries if entry.name == volume.name)
        has_sizes = subject.is_block or await subject.has(Cap.RESIZE)
        assert found.size_mb >= size_mb or not has_sizes, f"{size_mb} MB were asked for, and it has {found.size_mb}"
        await subject.drop(volume)

    @staticmethod
    async def _planned(subject: Subject, volume: Volume) -> tuple[Steps, InvalidError | None]:
        try:
            return await subject.create(volume), None
        except InvalidError as error:
            return (), error

    async def test_more_than_the_pool_has(self, subject: Subject) -> None:
        """Refused before anything is done, with the field that is wrong."""
        before = await subject.names()
        with pytest.raises(NoCapacityError) as refused:
            await subject.create(subject.volume(BEYOND_MB))
        assert refused.value.field == "size_mb"
        assert await subject.names() == before
        if Cap.RESIZE in subject.declared:
            await subject.confirm(Cap.RESIZE)
            volume = await subject.made("mine")
            with pytest.raises(NoCapacityError):
                await subject.resize(volume, BEYOND_MB)
            assert await subject.mark(volume) == "mine"
            await subject.drop(volume)

    @pytest.mark.parametrize("verb", ["fill", "clone"])
    async def test_a_pool_that_gets_full(self, subject: Subject, verb: str) -> None:
        """The operation fails and says so; undone, nothing is left, what was there is whole, and the pool goes on."""
        subject.require(Cap.FILL)
        if verb == "clone":
            subject.require(Cap.CLONE)
        small = subject.small()
        if verb == "clone" and small.is_block and await small.has(Cap.CLONE_COW):
            subject.skip("clones of a block device take no room when they are made")
        archive = await small.content.archive(_TOO_MUCH)
        kept = await small.made("kept", 16 if small.is_block else None)
        before = await small.names()
        await self._fill_it(small, archive, verb)
        assert await small.names() == before
        left = await small.leftovers()
        assert not left, f"the full pool names leftovers: {left}"
        assert await small.mark(kept) == "kept"
        again = await small.made("again", 16 if small.is_block else None)
        assert await small.mark(again) == "again"
        await small.drop(kept, again)
        await small.shell('rm -rf "$(dirname "$1")"', archive)

    async def _fill_it(self, small: Subject, archive: str, verb: str) -> None:
        """Until it is refused or fails; then all is undone."""
        size = SMALL_MB if small.is_block else None
        made: list[Volume] = []
        if verb == "fill":
            volume = small.volume(size)
            with pytest.raises((CommandFailedError, NoCapacityError)):
                await small.runner.do(await small.create(volume))
                await small.runner.do(await small.fill(volume, archive))
            made.append(volume)
        else:
            # A third of the pool; each copy is changed wholly, so that none shares anything with another.
            script = _TOO_MUCH.replace(f"seq {SMALL_MB // 8}", f"seq {max(1, SMALL_MB // 48)}")
            source = await small.filled(script, SMALL_MB // 2 if small.is_block else None)
            made.append(source)
            with pytest.raises((CommandFailedError, NoCapacityError)):
                for _ in range(6):
                    copy = small.volume(source.size_mb)
                    made.append(copy)
                    await small.runner.do(await small.clone(source, copy))
                    if not small.is_block:
                        await small.in_tree(copy, 'cd "$1" && eval "$2" && sync "$1"', script)
        for volume in reversed(made):
            await small.drop(volume)
