"""A crash at every journal boundary, on every database; and a controller that wakes up too late."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.errors import ConflictError
from openqrm.domain.operation import Counter, Operation, OperationStatus, StepStatus
from openqrm.engine.journal import RecordJournal
from openqrm.engine.state import Policy
from openqrm.plugin_api.changes import Progress
from openqrm.plugin_api.steps import Change, Command, Gate, Plan, Planning, Run, Step, Wait, Write
from openqrm.plugin_api.values import Output
from openqrm.store.database import SqlDatabase
from openqrm.store.journal import SqlJournal
from openqrm.testing.controller import Site
from openqrm.testing.crash import World, crash_everywhere
from openqrm.testing.database import PostgresServer, SqliteFiles, open_database
from openqrm.testing.fake_host import FakeHosts, Fault, Request
from openqrm.testing.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openqrm.engine.ports import Finished, GateToken, Ready
    from openqrm.plugin_api.changes import ChangeCall
    from openqrm.plugin_api.records import Reader, Writer

AnyDatabase = SqlDatabase | MemoryDatabase
GATE = Gate(volume="volume-1", generation=3)
"""Fast: a crash loop on real databases runs on real time."""
POLICY = Policy(backoff=(0.001, 0.002))


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def fresh(request: pytest.FixtureRequest) -> Iterator[Callable[[], AnyDatabase]]:
    """Gives an empty database of each kind in turn, again and again; a real one is emptied, which is fast."""
    kind: str = request.param
    if kind == "memory":
        yield MemoryDatabase
        return
    server: PostgresServer | None = request.getfixturevalue("postgres_server") if kind == "postgresql" else None
    files: SqliteFiles = request.getfixturevalue("sqlite_files")
    url = server.fresh() if server else files.fresh()
    database = open_database(url)

    def emptied() -> AnyDatabase:
        with database.engine.begin() as connection:
            for table in reversed(database.schema.metadata.sorted_tables):
                connection.execute(table.delete())
        return database

    yield emptied
    database.close()
    if server:
        server.drop(url)


def make_thing(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    if call.arguments.get("broken"):
        raise ConflictError("it never works")
    return {"id": writer.insert(Counter(name=str(call.arguments["called"]))).id}


def unmake_thing(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    writer.delete(Counter, int(call.output["id"]))
    return {}


def thing_there(reader: Reader, call: ChangeCall) -> Progress:
    return Progress(done=reader.count(Counter, name=call.arguments["called"]) > 0)


CHANGES = {"thing.make": make_thing, "thing.unmake": unmake_thing}


def thing(name: str, **arguments: Any) -> Change:
    given = {"called": f"thing-{name}"} | arguments
    return Change(name=name, change="thing.make", arguments=given, undo="thing.unmake")


def made(name: str, *words: Any, verify: bool = True) -> Run:
    return Run(
        name=name,
        host=1,
        do=Command(argv=("make", name, *words)),
        undo=Command(argv=("unmake", name)),
        verify=Command(argv=("made", name)) if verify else None,
        gate=GATE,
    )


@dataclass
class Plot:
    """A synthetic operation with every kind of step; `last` decides whether it succeeds."""

    fresh: Callable[[], AnyDatabase]
    last: Step
    worlds: list[World] = field(default_factory=list)

    async def plan(self, operation: Operation, phase: str) -> Plan:
        del operation
        word = Output(step="lease", field="id")
        return Plan(steps=(made(f"{phase}-1", word, verify=False), thing(f"{phase}-2"), made(f"{phase}-3")))

    def build(self) -> World:
        database = self.fresh()
        kind = SqlJournal if isinstance(database, SqlDatabase) else RecordJournal
        hosts = FakeHosts()
        hosts.host(1).files["/etc/exports"] = ("before", "0600")
        conditions = {"thing.there": thing_there}
        site = Site(database, hosts, CHANGES, conditions, self.plan, policy=POLICY, make_journal=kind)
        grant = Run(
            name="grant",
            host=1,
            do=Command(argv=("grant", "volume-1", "c")),
            undo=Command(argv=("revoke", "volume-1")),
            gate=GATE,
        )
        wait = Wait(name="there", condition="thing.there", arguments={"called": "thing-more-2"}, timeout=5)
        exports = Write(name="exports", host=1, path="/etc/exports", content="after", gate=GATE)
        steps = (thing("lease"), Planning(name="planning", phase="more"), wait, exports, grant, self.last)
        operation = site.enqueue(steps, targets=["volume-1"])
        return World(site, (operation.id,), site.settle)


def nothing_left(world: World) -> None:
    host = world.site.hosts.host(1)
    assert host.things == {}
    assert host.files == {"/etc/exports": ("before", "0600")}
    assert host.grants == {}
    with world.site.database.read() as reader:
        assert reader.count(Counter, name__ne="epoch") == 0


def all_there(world: World) -> None:
    host = world.site.hosts.host(1)
    assert host.things == {"more-1": "whole", "more-3": "whole", "last": "whole"}
    assert host.files == {"/etc/exports": ("after", "0644")}
    assert host.grants["volume-1"][0] == "c"
    with world.site.database.read() as reader:
        assert reader.count(Counter, name__ne="epoch") == 2


def in_order(world: World) -> None:
    orders = [(effect.gate.generation, effect.gate.epoch) for effect in world.site.hosts.effects if effect.gate]
    assert orders == sorted(orders)


async def test_a_crash_anywhere_still_completes(fresh: Callable[[], AnyDatabase]) -> None:
    report = await crash_everywhere(Plot(fresh, made("last")).build, [all_there, in_order])
    assert report.boundaries > 15
    assert set(report.ends) == {(OperationStatus.DONE,)}


async def test_a_crash_anywhere_in_a_failing_operation_is_still_undone(fresh: Callable[[], AnyDatabase]) -> None:
    last = Run(name="last", host=1, do=Command(argv=("false",)), undo=Command(argv=("true",)))
    report = await crash_everywhere(Plot(fresh, last).build, [nothing_left, in_order])
    assert report.boundaries > 25
    assert set(report.ends) == {(OperationStatus.FAILED,)}


async def test_a_failing_change_is_undone_after_a_crash_too() -> None:
    report = await crash_everywhere(Plot(MemoryDatabase, thing("last", broken=True)).build, [nothing_left])
    assert set(report.ends) == {(OperationStatus.FAILED,)}


class PausedHosts:
    """What a controller sees that is stopped (SIGSTOP) just before its command reaches the host."""

    def __init__(self, hosts: FakeHosts, stop_at: str) -> None:
        self.hosts = hosts
        self.stop_at = stop_at
        self.stopped = asyncio.Event()
        self.go_on = asyncio.Event()

    async def run(self, host: int, command: Ready, *, gate: GateToken | None, seconds: float) -> Finished:
        if command.argv[0] == self.stop_at:
            self.stopped.set()
            await self.go_on.wait()
        return await self.hosts.run(host, command, gate=gate, seconds=seconds)

    async def read_file(self, host: int, path: str, *, seconds: float) -> tuple[str, str] | None:
        return await self.hosts.read_file(host, path, seconds=seconds)

    async def send_file(self, host: int, source: str, path: str, *, seconds: float) -> None:
        await self.hosts.send_file(host, source, path, seconds=seconds)

    async def write_file(
        self, host: int, path: str, content: str | None, mode: str, *, gate: GateToken | None, seconds: float
    ) -> None:
        await self.hosts.write_file(host, path, content, mode, gate=gate, seconds=seconds)


async def test_a_controller_that_wakes_up_late_changes_nothing(fresh: Callable[[], AnyDatabase]) -> None:
    """Two engines on one journal: one stops before its grant, the other takes over, then the first one goes on."""
    world = Plot(fresh, made("last")).build()
    site: Site = world.site
    hosts: FakeHosts = site.hosts  # type: ignore[assignment]  # the plot's
    paused = PausedHosts(hosts, "grant")
    first = site.runner(owner="first", alone=False, lease_seconds=600, ports={"hosts": paused})
    await first.start()
    await paused.stopped.wait()
    second = site.runner(owner="second", alone=True)
    await second.start()
    await site.settle()
    all_there(world)
    assert site.status(world.operations[0]) is OperationStatus.DONE
    before = (dict(hosts.host(1).grants), list(hosts.effects), site.work(world.operations[0]))

    paused.go_on.set()
    await asyncio.gather(*first.active.values())
    assert len([request for request in hosts.requests if request.argv[0] == "grant"]) == 2, "it did try"
    assert (dict(hosts.host(1).grants), list(hosts.effects), site.work(world.operations[0])) == before
    await first.stop()
    await second.stop()


async def test_a_late_controller_cannot_undo_either(fresh: Callable[[], AnyDatabase]) -> None:
    """It is stopped before its undo; another one finished the undo, and a later generation was granted meanwhile."""
    last = Run(name="last", host=1, do=Command(argv=("false",)), undo=Command(argv=("true",)))
    world = Plot(fresh, last).build()
    site: Site = world.site
    hosts: FakeHosts = site.hosts  # type: ignore[assignment]  # the plot's
    paused = PausedHosts(hosts, "revoke")
    first = site.runner(owner="first", alone=False, lease_seconds=600, ports={"hosts": paused})
    await first.start()
    await paused.stopped.wait()
    second = site.runner(owner="second", alone=True)
    await second.start()
    await site.settle()
    later = Run(
        name="grant",
        host=1,
        do=Command(argv=("grant", "volume-1", "other")),
        undo=Command(argv=("true",)),
        gate=Gate(volume="volume-1", generation=4),
    )
    operation = site.enqueue([later], targets=["volume-1"])
    await site.settle()
    assert site.status(operation.id) is OperationStatus.DONE

    paused.go_on.set()
    await asyncio.gather(*first.active.values())
    assert hosts.host(1).grants["volume-1"][0] == "other"
    assert site.status(world.operations[0]) is OperationStatus.FAILED
    await first.stop()
    await second.stop()


async def test_an_operation_refused_by_the_gate_while_it_is_still_ours_is_undone() -> None:
    """The host knows a later generation, but no other controller took over: that is a failure like others."""
    hosts = FakeHosts()
    hosts.host(1).seen["volume-1"] = (9, 9)
    site = Site(MemoryDatabase(), hosts, policy=POLICY)
    free = Run(name="free", host=2, do=Command(argv=("make", "x")), undo=Command(argv=("unmake", "x")))
    operation = site.enqueue([free, made("late")])
    await site.run()
    work = site.work(operation.id)
    assert work.operation.status is OperationStatus.FAILED
    assert work.operation.error is not None
    assert work.operation.error["code"] == "stale"
    assert [step.status for step in work.steps] == [StepStatus.UNDONE, StepStatus.UNDONE]
    assert hosts.host(2).things == {}


async def test_a_crash_in_the_middle_of_a_command_is_finished_by_the_next_controller() -> None:
    """The command dies with the connection: half of the effect is there."""
    hosts = FakeHosts()
    site = Site(MemoryDatabase(), hosts, policy=POLICY)
    died: list[Request] = []

    def once(request: Request) -> Fault | None:
        if request.argv[0] == "make" and not died:
            died.append(request)
            return Fault.DURING
        return None

    hosts.faults = once
    operation = site.enqueue([made("a")])
    await site.run()
    assert site.status(operation.id) is OperationStatus.DONE
    assert hosts.host(1).things == {"a": "whole"}
