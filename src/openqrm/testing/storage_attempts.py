"""Verbs of drivers as tests of faults see them: the steps, how a finished one looks, how one that never was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openqrm.domain.errors import OpenqrmError
from openqrm.plugin_api.drivers import Cap

if TYPE_CHECKING:
    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.steps import Steps
    from openqrm.testing.storage_subject import Subject

POOL_VERBS = ("create", "clone", "fill", "snapshot", "resize", "remove")
EXPORT_VERBS = ("authorize", "revoke", "lend", "reclaim")
_NEEDED = {
    "clone": (Cap.CLONE,),
    "fill": (Cap.FILL,),
    "snapshot": (Cap.SNAPSHOT,),
    "resize": (Cap.RESIZE, Cap.FILL),
    "authorize": (Cap.AUTHORIZE,),
    "revoke": (Cap.AUTHORIZE,),
    "lend": (Cap.LEND,),
    "reclaim": (Cap.LEND,),
}
ONLY_FORWARD = frozenset({"remove", "revoke", "reclaim"})
"""Verbs that cannot be undone: they are repeated until they are done."""
FILES, FILE_MB = 12, 1
CONTENT = f"""
for number in $(seq {FILES}); do head -c {FILE_MB}M /dev/urandom >"file$number"; done
sha256sum file* >sums
"""
"""A script that makes what attempts fill volumes with."""
WHOLE = 'cd "$1" && sha256sum --quiet -c sums && ls | grep -c "^file"'
"""Prints the number of files, FILES, where that is whole."""
BIG_MB, GROWN_MB = 64, 96
_FIND = """
case $1 in
/*) [ ! -d "$1" ] || find "$1" -name "*$2*" -print -prune ;;
*)
    lvs --noheadings -o vg_name,lv_name "$1" 2>/dev/null | grep -F -e "$2" || true
    zfs list -H -r -t filesystem,volume -o name "$1" 2>/dev/null | grep -F -e "$2" || true
    ;;
esac
"""


@dataclass
class Source:
    """What attempts begin from: a volume with content, and an archive of the same."""

    volume: Volume
    archive: str

    async def drop(self, subject: Subject) -> None:
        """Remove both."""
        await subject.drop(self.volume)
        await subject.shell('rm -rf "$(dirname "$1")"', self.archive)


@dataclass
class Attempt:
    """One verb on one volume. `steps` are what is tried; `before` was done to get there."""

    subject: Subject
    verb: str
    volume: Volume
    steps: Steps
    before: Steps = ()
    generation: int = 0

    async def is_done(self) -> None:
        """AssertionError unless the whole effect is in place."""
        subject, volume = self.subject, self.volume
        if self.verb in EXPORT_VERBS:
            given = self.verb in ("authorize", "lend")
            grants = [each for each in await subject.all_grants() if each.volume == f"volume-{volume.id}"]
            assert bool(grants) == given, f"{self.verb}: the host's grants are {grants}"  # noqa: S101
            return
        there = volume.name in await subject.names()
        assert there == (self.verb != "remove"), f"{self.verb}: volume {volume.name} there: {there}"  # noqa: S101
        if self.verb == "create":
            assert await subject.content.is_empty(subject.where(volume)), "what was made is not empty"  # noqa: S101
        elif self.verb != "remove":
            found = await subject.in_tree(volume, WHOLE)
            assert found.strip() == str(FILES), f"{self.verb}: {found} files are there"  # noqa: S101
        await self.nothing_left_over()

    async def is_undone(self) -> None:
        """AssertionError when anything of it is there: undone, together with what was done before."""
        subject, volume = self.subject, self.volume
        if self.verb in EXPORT_VERBS:
            left = [each for each in await subject.all_grants() if each.volume == f"volume-{volume.id}"]
            assert left == [], f"{self.verb} was undone, and the host still gives {left}"  # noqa: S101
            return
        assert volume.name not in await subject.names()  # noqa: S101
        found = await self.found()
        assert found == "", f"{self.verb} was undone, and this is left: {found}"  # noqa: S101
        await self.nothing_left_over()

    async def nothing_left_over(self) -> None:
        """AssertionError when the pool names leftovers of this volume."""
        left = [each for each in await self.subject.leftovers() if self.volume.name in each]
        assert left == [], f"after {self.verb} the pool names leftovers: {left}"  # noqa: S101

    async def whole_or_named(self) -> None:
        """After it was cut off: a volume that the pool shows is whole, and what is none is named as left over."""
        subject, volume = self.subject, self.volume
        if self.verb not in ("clone", "snapshot", "create"):
            return
        found = ""
        for _ in range(2):  # it may end meanwhile, where only the connection was cut: both looks must find the same
            if volume.name in await subject.names():
                if self.verb != "create":
                    whole = (await subject.in_tree(volume, WHOLE)).strip() == str(FILES)
                    assert whole, "half a copy is shown"  # noqa: S101
                return
            found = await self.found()
            if not found or [each for each in await subject.leftovers() if volume.name in each]:
                return
        raise AssertionError(f"no leftover, by the pool, is: {found}")

    async def found(self) -> str:
        """What is in the pool's place and has the volume's name: files of a directory, logical volumes, datasets."""
        return (await self.subject.shell(_FIND, self.subject.place, self.volume.name)).strip()

    async def undo(self) -> None:
        """As the engine does it: the last step first; what was done before too."""
        await self.subject.runner.undo([*self.before, *self.steps])

    async def clean(self) -> None:
        """At a test's end: the volume is gone."""
        subject = self.subject
        if self.verb == "authorize":
            await subject.runner.do(await subject.revoke(self.volume, subject.clients[0], self.generation))
        elif self.verb == "lend":
            await subject.runner.do(await subject.reclaim(self.volume, subject.clients[0]))
        await subject.drop(self.volume)


async def source_for(subject: Subject, *verbs: str) -> Source:
    """A volume with content, if one of the verbs needs it; the archive always."""
    for verb in verbs:
        for capability in _NEEDED.get(verb, ()):
            await subject.confirm(capability)
    archive = await subject.content.archive(CONTENT)
    volume = subject.volume(BIG_MB if subject.is_block else None)
    await subject.runner.do(await subject.create(volume))
    if Cap.FILL in subject.declared:
        await subject.runner.do(await subject.fill(volume, archive))
    return Source(volume, archive)


async def attempt(subject: Subject, verb: str, source: Source) -> Attempt:
    """A verb that is about to be tried, on a volume of its own."""
    volume = subject.volume(BIG_MB if subject.is_block or verb == "resize" else None)
    before: Steps = ()
    if verb in ("clone", "snapshot"):
        plan = subject.clone if verb == "clone" else subject.snapshot
        return Attempt(subject, verb, volume, await plan(source.volume, volume))
    if verb != "create":
        before = await subject.create(volume)
        await subject.runner.do(before)
    if verb == "resize":
        await subject.runner.do(await subject.fill(volume, source.archive))
    match verb:
        case "create":
            steps = await subject.create(volume)
        case "fill":
            steps = await subject.fill(volume, source.archive)
        case "resize":
            steps = await subject.resize(volume, GROWN_MB)
        case "remove":
            steps = await subject.remove(volume)
        case _:
            return await _grant(subject, verb, volume)
    return Attempt(subject, verb, volume, steps, before)


async def _grant(subject: Subject, verb: str, volume: Volume) -> Attempt:
    client = subject.clients[0]
    if verb == "authorize":
        steps = await subject.authorize(volume, client, 1)
    elif verb == "lend":
        steps = await subject.lend(volume, client)
    elif verb == "revoke":
        await subject.runner.do(await subject.authorize(volume, client, 1))
        steps = await subject.revoke(volume, client, 1)
    else:
        await subject.runner.do(await subject.lend(volume, client))
        steps = await subject.reclaim(volume, client)
    return Attempt(subject, verb, volume, steps, generation=1)


async def try_and_fail(steps: Steps, subject: Subject) -> bool:
    """Whether the steps were done, for what may be cut off meanwhile."""
    try:
        await subject.runner.do(steps)
    except OpenqrmError:
        return False
    return True
