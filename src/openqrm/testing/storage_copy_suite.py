"""Copies that share what is not changed, snapshots, and volumes that grow. Part of the conformance suite of pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openqrm.domain.errors import InvalidError
from openqrm.plugin_api.drivers import Cap

if TYPE_CHECKING:
    from openqrm.testing.storage_subject import Subject

SMALL, LARGE = 4, 40
"""Megabytes of content of two sources."""
DELTA = 4
_RANDOM = "head -c %dM /dev/urandom >big"
_CHANGE = f'dd if=/dev/urandom of="$1/big" bs=1M count={DELTA} conv=notrunc,fsync 2>/dev/null; sync -f "$1"'


class PoolCopySuite:
    """Inherit and provide the fixture `subject`."""

    async def test_a_clone_shares_what_is_not_changed(self, subject: Subject) -> None:
        """What it takes of the pool, and so its time, does not grow with the source."""
        await subject.confirm(Cap.CLONE_COW)
        used = []
        for size in (SMALL, LARGE):
            source = await subject.filled(_RANDOM % size, 2 * LARGE if subject.is_block else None)
            copy = subject.volume(source.size_mb)
            before = await subject.pool_uses_kb(source)
            steps = await subject.clone(source, copy)
            await subject.runner.do(steps)
            used.append(await subject.pool_uses_kb(source) - before)
            sums = [await subject.in_tree(each, 'sha256sum <"$1/big"') for each in (source, copy)]
            assert sums[0] == sums[1]
            await subject.drop(copy, source)
        assert used[1] < LARGE * 1024 // 4, f"a clone of {LARGE} MB took {used[1]} KB"
        grown = used[1] - max(0, used[0])  # what earlier tests removed may only now be free
        assert grown < (LARGE - SMALL) * 1024 // 8, f"{SMALL} MB took {used[0]} KB, {LARGE} MB took {used[1]} KB"

    async def test_a_snapshot_holds_only_what_differs(self, subject: Subject) -> None:
        await subject.confirm(Cap.SNAPSHOT)
        source = await subject.filled(_RANDOM % LARGE, 2 * LARGE if subject.is_block else None)
        taken = subject.volume(2 * LARGE if subject.is_block else None)
        looked = 'sha256sum <"$1/big"'
        content = await subject.in_tree(source, looked)
        before = await subject.pool_uses_kb(source)
        steps = await subject.snapshot(source, taken)
        for _ in range(2):
            await subject.runner.do(steps)
        assert await subject.pool_uses_kb(source) - before < LARGE * 1024 // 4
        assert await subject.in_tree(taken, looked) == content
        # What is written to the one is not in the other, whichever it is, and takes about its own size.
        await subject.in_tree(source, _CHANGE)
        assert await subject.in_tree(taken, looked) == content
        changed = await subject.in_tree(source, looked)
        await subject.in_tree(taken, _CHANGE)
        assert await subject.in_tree(source, looked) == changed
        assert await subject.in_tree(taken, looked) not in (content, changed)
        assert await subject.pool_uses_kb(source) - before < LARGE * 1024 // 2
        await subject.drop(taken)
        assert await subject.in_tree(source, looked) == changed
        await subject.drop(source)

    @pytest.mark.parametrize("verb", ["fill", "clone"])
    async def test_a_volume_grows_with_its_file_system(self, subject: Subject, verb: str) -> None:
        await subject.confirm(Cap.RESIZE)
        source = volume = await subject.filled(_RANDOM % SMALL, 64)
        if verb == "clone":
            subject.require(Cap.CLONE)
            volume = subject.volume(64)
            await subject.runner.do(await subject.clone(source, volume))
        looked = 'sha256sum <"$1/big"'
        content = await subject.in_tree(volume, looked)
        steps = await subject.resize(volume, 128)
        for _ in range(2):
            await subject.runner.do(steps)
        grown = volume.model_copy(update={"size_mb": 128})
        assert await subject.in_tree(grown, looked) == content
        entries = subject.pool.entries(subject.context(), await subject.pool_facts())
        assert next(entry.size_mb for entry in entries if entry.name == volume.name) >= 128
        # More than it had room for before.
        await subject.in_tree(grown, 'head -c 70M /dev/urandom >"$1/more" && sync "$1/more"')
        assert await subject.in_tree(grown, looked) == content
        await subject.drop(grown)
        if verb == "clone":
            await subject.drop(source)

    async def test_a_volume_does_not_shrink(self, subject: Subject) -> None:
        await subject.confirm(Cap.RESIZE)
        volume = await subject.made("mine", 64)
        with pytest.raises(InvalidError) as refused:
            await subject.resize(volume, 32)
        assert refused.value.field == "size_mb"
        assert await subject.mark(volume) == "mine"
        await subject.drop(volume)
