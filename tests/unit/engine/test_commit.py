"""A plan may say that there is no way back from a step on: before it everything is undone, behind it nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from openqrm.domain.errors import ConflictError
from openqrm.domain.operation import OperationStatus
from openqrm.engine import requests
from openqrm.operations.changes import commit
from openqrm.plugin_api.steps import Change, Command, Irreversible, Wait
from openqrm.testing import virtual
from openqrm.testing.controller import Site
from openqrm.testing.fake_host import FakeHosts, Fault, Request
from openqrm.testing.memory import MemoryDatabase
from openqrm.testing.things import CHANGES, CONDITIONS, add, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from openqrm.testing.virtual import VirtualLoop

COMMIT = Change(name="commit", change="operation.commit", undo=Irreversible(reason="it is in use"))


def play(story: Callable[[Site, FakeHosts], Awaitable[None]]) -> None:
    async def body(loop: VirtualLoop) -> None:
        hosts = FakeHosts()
        changes = CHANGES | {"operation.commit": commit}
        await story(Site(MemoryDatabase(clock=loop.now), hosts, changes, CONDITIONS), hosts)

    virtual.run(body)


def never(*words: str) -> Callable[[Request], Fault | None]:
    return lambda request: Fault.STATUS if request.argv == words else None


@pytest.mark.parametrize("more", [(), (COMMIT,)])
def test_what_fails_before_it_is_undone(more: tuple[Change, ...]) -> None:
    async def story(site: Site, hosts: FakeHosts) -> None:
        hosts.faults = never("make", "b")
        operation = site.enqueue([run("a"), run("b"), *more])
        await site.run()
        assert site.status(operation.id) is OperationStatus.FAILED
        assert hosts.host(1).things == {}

    play(story)


def test_what_fails_behind_it_waits_for_a_human_and_goes_on() -> None:
    async def story(site: Site, hosts: FakeHosts) -> None:
        hosts.faults = never("make", "b")
        operation = site.enqueue([run("a"), COMMIT, run("b"), run("c")])
        await site.run()
        assert site.status(operation.id) is OperationStatus.ATTENTION
        assert hosts.host(1).things == {"a": "whole"}
        hosts.faults = lambda request: None  # the cause is mended
        with site.database.write() as writer:
            requests.resume(writer, operation.id)
        await site.run()
        assert site.status(operation.id) is OperationStatus.DONE
        assert hosts.host(1).things == {"a": "whole", "b": "whole", "c": "whole"}

    play(story)


def test_a_change_behind_it_that_fails_undoes_nothing_either() -> None:
    """Both are tried in one transaction at first."""

    async def story(site: Site, hosts: FakeHosts) -> None:
        add(site.database, "busy")
        operation = site.enqueue([run("a"), COMMIT, Change(name="t", change="thing.take", undo="thing.unmake")])
        await site.run()
        assert site.status(operation.id) is OperationStatus.ATTENTION
        assert hosts.host(1).things == {"a": "whole"}

    play(story)


def test_behind_it_nobody_cancels() -> None:
    async def story(site: Site, hosts: FakeHosts) -> None:
        wait = Wait(name="w", condition="thing.there", arguments={"called": "x"}, timeout=600)
        operation = site.enqueue([run("a"), COMMIT, wait, run("b", undo=Command(argv=("true",)))])
        runner = site.runner()
        await runner.start()
        await asyncio.sleep(30)
        assert site.work(operation.id).operation.forward_only
        with pytest.raises(ConflictError, match="only goes forward"), site.database.write() as writer:
            requests.cancel(writer, operation.id)
        add(site.database, "x")
        await site.settle()
        await runner.stop()
        assert site.status(operation.id) is OperationStatus.DONE
        assert set(hosts.host(1).things) == {"a", "b"}

    play(story)
