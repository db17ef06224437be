"""Cutting a verb in the middle: when it really is, whatever the host's speed, and whether it really was.

A verb takes 20 ms on one host and seconds on another, and much of that is the way to it. So one whole run is measured
first, from when its command is seen among the host's processes, and the cuts come at shares of that, from late to
early and at last as soon as the command is seen. The host itself watches for it: before the link is cut or the plug is
pulled, which takes its time too, the command is stopped (SIGSTOP) there, and goes on by itself a moment later.

See docs/explanation/host-gate.md: it runs each command in a session of its own.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openqrm.engine.ports import Ready
from openqrm.testing.storage_attempts import ONLY_FORWARD, attempt, try_and_fail

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from openqrm.testing.storage_attempts import Attempt, Source
    from openqrm.testing.storage_subject import Subject

    Harm = Callable[[Attempt, float], Awaitable[bool]]

SHARES = (0.8, 0.5, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0)
"""Of what the verb takes. No more of them are tried than are needed for as many cuts as a test wants."""
SOON = 0.005
"""Seconds: what is to come sooner comes as soon as the command is seen, and for that the host lets it begin slowly."""
WATCH_SECONDS = 20
"""How long the host watches for a command; it is told before when there is none any more."""
HELD_SECONDS = 2
"""After this a command that was stopped goes on, if it is still there."""
# Given as input, so that its own words do not hold the name it looks for. The gate has the name in its words long
# before the command begins, and its end is not the command's: killed before that, it would only be asked again.
_WATCH = r"""
first=FIRST rest=REST before=' BEFORE ' moment=MOMENT act=ACT groups=
of() { # WORD...: the processes of these files in /proc that began since
    for file in "$@"; do
        number=${file#/proc/} number=${number%/cmdline}
        case $before in
        *" $number "*) ;;
        *) [ "$file" = /dev/null ] || printf '%s ' "$number" ;;
        esac
    done
}
files() { # NUMBER...
    for number in "$@"; do printf '/proc/%s/cmdline ' "$number"; done
}
look() { # sets all and commands
    with=$(grep -lsa -e "[$first]$rest" /proc/[0-9]*/cmdline)
    all=$(of $with) commands=
    [ -n "$all" ] || return 0
    commands=$(of $(grep -Lsa -e openqrm-gate $with /dev/null </dev/null))
    # One that has just ended has no words any more, and so none of the gate's.
    [ -z "$commands" ] || commands=$(of $(grep -lsa -e "[$first]$rest" $(files $commands) /dev/null </dev/null))
}
tell() { # SIGNAL: the command under the gate, with all it started; the gate that leads them is stopped with them
    for group in $groups; do kill -s "$1" -- "-$group" 2>/dev/null; done
}
slowly() { # from when the gate begins, a step at a time, so that a command of milliseconds is seen too
    tell CONT
    groups=$(of $(grep -lsa -e supervise $with /dev/null </dev/null))
    [ -z "$groups" ] || sleep 0.001
    tell STOP
}
read -r now more </proc/uptime
end=$((${now%.*} + SECONDS)) begun=
while look && [ -z "$commands" ]; do
    [ -z "$begun" ] || [ -n "$all" ] || exit 0
    begun=$all
    [ "$moment" != 0 ] || slowly
    read -r now more </proc/uptime
    [ "${now%.*}" -lt "$end" ] || break
done
case $moment in
0 | never) ;;
*)
    sleep "$moment"
    look
    ;;
esac
[ -n "$groups" ] || groups=$(of $(grep -lsa -e supervise $with /dev/null </dev/null))
case $act in
kill)
    [ -z "$all" ] || kill -9 $all 2>/dev/null
    tell CONT # what it started goes on without it
    ;;
hold)
    tell STOP
    setsid sh -c 'sleep "$1"; shift; for group in "$@"; do kill -s CONT -- "-$group"; done' \
        sh HELD $groups </dev/null >/dev/null 2>&1 &
    ;;
esac
echo "$commands"
"""
_THERE = "for file in $(grep -lsa -e '[FIRST]REST' /proc/[0-9]*/cmdline); do echo \"${file#/proc/}\"; done"


@dataclass
class Watch:
    """One try of a verb, and the host's eye on it."""

    subject: Subject
    running: asyncio.Task[bool]
    watching: asyncio.Task[str]

    @classmethod
    async def begin(cls, tried: Attempt, act: str, moment: float | None) -> Watch:
        """The eye first: what has the volume's name in its words by then, such as a server, is not the verb's."""
        subject, name = tried.subject, tried.volume.name
        began = time.monotonic()
        there = await _told(subject, _THERE, name)
        reach = time.monotonic() - began
        before = " ".join(line.partition("/")[0] for line in there.split())
        at = "never" if moment is None else f"{moment:.3f}" if moment >= SOON else "0"
        script = _WATCH.replace("BEFORE", before).replace("MOMENT", at)
        script = script.replace("ACT", act).replace("SECONDS", str(WATCH_SECONDS)).replace("HELD", str(HELD_SECONDS))
        watching = asyncio.create_task(_told(subject, script, name))
        await asyncio.sleep(reach)
        return cls(subject, asyncio.create_task(try_and_fail(tried.steps, subject)), watching)

    async def seen(self) -> bool:
        """Whether the command was there at its moment; False also when the verb ended before."""
        await asyncio.wait({self.running, self.watching}, return_when=asyncio.FIRST_COMPLETED)
        if not self.watching.done():
            await asyncio.wait({self.watching}, timeout=1)
        if not self.watching.done():
            self.watching.cancel()
            return False
        return bool(self.watching.result().strip())


async def _told(subject: Subject, script: str, name: str) -> str:
    ready = Ready(("sh", "-s"), input=script.replace("FIRST", name[0]).replace("REST", name[1:]))
    return (await subject.hosts.run(subject.host, ready, gate=None, seconds=3 * WATCH_SECONDS)).stdout


async def measured(subject: Subject, verb: str, source: Source) -> float:
    """Seconds of a whole run of the verb, from when its command was seen on the host; 0 when it never was."""
    tried = await attempt(subject, verb, source)
    watch = await Watch.begin(tried, "see", None)
    seen = await watch.seen()
    began = time.monotonic()
    assert await watch.running, f"{verb} failed, and nothing was done to it"  # noqa: S101
    took = time.monotonic() - began
    await tried.clean()
    return took if seen else 0.0


async def in_the_middle(subject: Subject, verb: str, source: Source, harm: Harm, wanted: int = 2) -> None:
    """Tries are cut until as many as wanted were, or nothing helps; AssertionError when none was. Each is mended, in
    turn by repeating it and by undoing it."""
    took = await measured(subject, verb, source)
    cut = 0
    for share in SHARES:
        tried = await attempt(subject, verb, source)
        was_cut = await harm(tried, share * took)
        print(f"{verb}, {took:.3f} s, at {share * took:.3f} s: {'cut' if was_cut else 'not cut'}")
        await mended(tried, undo=cut % 2 == 1)
        cut += was_cut
        if cut == wanted:
            break
    assert cut, f"{verb} takes {took:.3f} s on the host, and was never cut in the middle"  # noqa: S101


async def what_is_left_is_named(subject: Subject, verb: str, source: Source) -> bool:
    """Kill the verb until something that is no volume is left: AssertionError unless the pool names it, and names
    nothing any more when the verb was undone. False when no try left anything."""
    took = await measured(subject, verb, source)
    for share in SHARES:
        tried = await attempt(subject, verb, source)
        before = set((await tried.found()).splitlines())
        await killed(tried, share * took)
        await tried.whole_or_named()
        left = set((await tried.found()).splitlines()) - before
        whole = verb != "fill" and tried.volume.name in await subject.names()
        named = [each for each in await subject.leftovers() if tried.volume.name in each]
        assert named or whole or not left, f"no leftover, by the pool, is: {left}"  # noqa: S101
        await tried.undo()
        await tried.is_undone()
        if named:
            return True
    return False


async def killed(tried: Attempt, moment: float) -> bool:
    """The command dies on the host; whether it did before its end."""
    watch = await Watch.begin(tried, "kill", moment)
    await watch.seen()
    return not await watch.running


async def cut_off(tried: Attempt, moment: float) -> bool:
    """The host is off the network until the controller has given up; then it is back."""
    subject = tried.subject
    assert subject.set_host_link is not None  # noqa: S101
    watch = await Watch.begin(tried, "hold", moment)
    if not await watch.seen():
        await watch.running
        return False
    subject.set_host_link(False)
    try:
        await subject.forget_connections()
        return not await watch.running
    finally:
        subject.set_host_link(True)


async def dies(tried: Attempt, moment: float) -> bool:
    """The host's plug is pulled, and it is on again."""
    subject = tried.subject
    assert subject.crash is not None  # noqa: S101
    watch = await Watch.begin(tried, "hold", moment)
    if not await watch.seen():
        await watch.running
        return False
    await subject.crash()
    await subject.forget_connections()
    # Without an answer it is asked again; a host that is back by then, and has no record of it, does it anew.
    await watch.running
    return True


async def mended(tried: Attempt, *, undo: bool) -> None:
    """What is left is whole or named; then the steps are repeated, or undone if they can be."""
    await tried.whole_or_named()
    if undo and tried.verb not in ONLY_FORWARD and tried.verb != "resize":
        await tried.undo()
        await tried.is_undone()
        if tried.verb in ("authorize", "lend"):
            await tried.subject.drop(tried.volume)
        return
    await tried.subject.runner.do(tried.steps)
    await tried.is_done()
    await tried.clean()
