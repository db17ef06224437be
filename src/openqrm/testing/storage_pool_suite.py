"""The conformance suite of pools, on a real host: volumes are made, copied, filled, grown and removed.

A plug-in's test inherits from `PoolSuite` and provides the fixture `subject`. What runs is decided by the declared
capabilities: a declared one cannot skip its tests, an undeclared one has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openqrm.domain.errors import CommandFailedError, OpenqrmError
from openqrm.plugin_api.drivers import Cap, Medium, Placed
from openqrm.testing.storage_attempts import BIG_MB, CONTENT, FILES, WHOLE, source_for
from openqrm.testing.storage_cuts import what_is_left_is_named

if TYPE_CHECKING:
    from openqrm.testing.storage_subject import Subject

_TREE = """
printf one >kept; chown 1234:4321 kept; chmod 4711 kept; ln kept hard; ln -s nowhere link; mkfifo pipe
mkdir -m 1777 tmp; mkdir -p deep/er; printf two >"deep/er/a name with spaces"
setfattr -n user.openqrm -v value kept 2>/dev/null || true
truncate -s 5M sparse
"""
_LOOK = r"""
cd "$1"
find . -path ./lost+found -prune -o -print | sort | while read -r name; do
    if [ -d "$name" ]; then stat -c "%n %a %u:%g %F" "$name"; else stat -c "%n %a %u:%g %h %s %F" "$name"; fi
done
readlink link
cat kept "deep/er/a name with spaces"
getfattr -n user.openqrm --only-values kept 2>/dev/null || true
"""


class PoolSuite:
    """Inherit and provide the fixture `subject`."""

    async def test_its_settings_say_where_the_volumes_are(self, subject: Subject) -> None:
        settings = subject.context().pool
        assert isinstance(settings, Placed)
        assert settings.place.strip()

    async def test_a_volume_is_made_and_removed(self, subject: Subject) -> None:
        volume = subject.volume()
        for _ in range(2):
            await subject.runner.do(await subject.create(volume))
        assert await subject.content.is_empty(subject.where(volume))
        entries = subject.pool.entries(subject.context(), await subject.pool_facts())
        assert {each.name: each.root_device for each in entries}[volume.name] == subject.where(volume)
        for _ in range(2):
            await subject.runner.do(await subject.remove(volume))
        assert volume.name not in await subject.names()

    async def test_a_repeated_creation_keeps_what_is_in_it(self, subject: Subject) -> None:
        volume = await subject.made("mine")
        await subject.runner.do(await subject.create(volume))
        assert await subject.mark(volume) == "mine"
        await subject.drop(volume)

    async def test_what_was_there_before_is_not_touched(self, subject: Subject) -> None:
        """A volume of the same name that somebody else made: refused, and the undo leaves it alone."""
        there = await subject.made("theirs")
        ours = subject.volume().model_copy(update={"name": there.name})
        with pytest.raises(OpenqrmError):
            await subject.runner.do(await subject.create(ours))
        try:
            await subject.runner.undo(await subject.create(ours))
        except CommandFailedError:
            raise
        except OpenqrmError:
            pass  # the planner refuses it already, so that there is nothing to undo
        assert await subject.mark(there) == "theirs"
        await subject.drop(there)

    async def test_one_volume_is_removed_and_no_other(self, subject: Subject) -> None:
        """Also one whose name begins like the other's."""
        gone = subject.volume()
        kept = subject.volume(name=f"{gone.name}0")
        for each in (gone, kept):
            await subject.runner.do(await subject.create(each))
        await subject.put_mark(kept, "kept")
        await subject.drop(gone)
        names = await subject.names()
        assert gone.name not in names
        assert kept.name in names
        assert await subject.mark(kept) == "kept"
        await subject.drop(kept)

    async def test_a_clone_is_a_copy_of_its_own(self, subject: Subject) -> None:
        subject.require(Cap.CLONE)
        source, copy = await subject.made("one"), subject.volume()
        for _ in range(2):
            await subject.runner.do(await subject.clone(source, copy))
        assert await subject.mark(copy) == "one"
        await subject.put_mark(copy, "two")
        assert await subject.mark(source) == "one"
        await subject.put_mark(source, "three")
        assert await subject.mark(copy) == "two"
        # Repeated, it does not copy again over what was changed since.
        await subject.runner.do(await subject.clone(source, copy))
        assert await subject.mark(copy) == "two"
        await subject.drop(source)
        assert await subject.mark(copy) == "two"
        await subject.drop(copy)

    async def test_a_clone_has_all_that_is_in_a_tree(self, subject: Subject) -> None:
        subject.require(Cap.CLONE, Cap.FILL)
        source, copy = await subject.filled(_TREE), subject.volume()
        await subject.runner.do(await subject.clone(source, copy))
        looks = [await subject.in_tree(each, _LOOK) for each in (source, copy)]
        assert looks[0] == looks[1]
        await subject.drop(source, copy)

    @pytest.mark.parametrize("gzip", [False, True])
    async def test_an_archive_is_unpacked_whole(self, subject: Subject, gzip: bool) -> None:
        subject.require(Cap.FILL)
        archive = await subject.content.archive(_TREE, gzip=gzip)
        volume = subject.volume()
        await subject.runner.do(await subject.create(volume))
        for _ in range(2):
            await subject.runner.do(await subject.fill(volume, archive))
        shown = await subject.in_tree(volume, _LOOK)
        for line in ("./kept 4711 1234:4321 2 3 regular file", "./tmp 1777 0:0 directory", "nowhere", "onetwo"):
            assert line in shown
        xattrs = await subject.shell("command -v setfattr >/dev/null && echo yes || echo no")
        assert shown.endswith("onetwovalue") or xattrs.strip() == "no"
        await subject.drop(volume)

    async def test_a_broken_archive_leaves_the_volume_empty(self, subject: Subject) -> None:
        subject.require(Cap.FILL)
        archive = await subject.content.archive("head -c 3000000 /dev/urandom >big")
        await subject.shell('truncate -s 2000000 "$1"', archive)
        volume = subject.volume()
        await subject.runner.do(await subject.create(volume))
        steps = await subject.fill(volume, archive)
        with pytest.raises(CommandFailedError):
            await subject.runner.do(steps)
        if subject.medium is Medium.TREE:
            assert await subject.content.is_empty(subject.where(volume))
        else:
            with pytest.raises(CommandFailedError):
                await subject.in_tree(volume, 'cat "$1/big"')
        await subject.runner.undo([*await subject.create(volume), *steps])
        assert volume.name not in await subject.names()
        assert not [each for each in await subject.leftovers() if volume.name in each]

    async def test_what_was_done_is_there_after_a_power_cut(self, subject: Subject) -> None:
        """At once after the answer: nothing looks at it before, for a look may be what brings it to the disk. On a host
        whose kernel is the test's own, only what runs is lost."""
        subject.needs("crash")
        size = BIG_MB if subject.is_block else None
        volumes = [await subject.filled(CONTENT, size) if Cap.FILL in subject.declared else await subject.made()]
        if Cap.CLONE in subject.declared:
            volumes.append(subject.volume(volumes[0].size_mb))
            await subject.runner.do(await subject.clone(*volumes))
        archive = await subject.content.archive(CONTENT)
        volumes.append(subject.volume(size))
        await subject.runner.do(await subject.create(volumes[-1]))
        if Cap.FILL in subject.declared:
            await subject.runner.do(await subject.fill(volumes[-1], archive))
        assert subject.crash is not None
        await subject.crash()
        await subject.forget_connections()
        assert {volume.name for volume in volumes} <= await subject.names()
        if Cap.FILL in subject.declared:
            assert [(await subject.in_tree(volume, WHOLE)).strip() for volume in volumes] == [str(FILES)] * len(volumes)
        assert not [each for each in await subject.leftovers() if any(volume.name in each for volume in volumes)]
        await subject.drop(*volumes)
        await subject.shell('rm -rf "$(dirname "$1")"', archive)

    async def test_what_is_no_volume_is_named(self, subject: Subject) -> None:
        """A pool that only volumes were made in has nothing left over, and what a killed command leaves is named."""
        volume = await subject.made()
        assert not [each for each in await subject.leftovers() if volume.name in each]
        await subject.drop(volume)
        assert not [each for each in await subject.leftovers() if volume.name in each]
        for verb in ("fill", "clone"):
            if Cap(verb) in subject.declared:
                source = await source_for(subject, verb)
                seen = await what_is_left_is_named(subject, verb, source)
                await source.drop(subject)
                if seen:
                    return
        subject.skip("commands that were killed left nothing over")
