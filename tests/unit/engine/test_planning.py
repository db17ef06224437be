"""Facts are asked in parallel, planners see them and the database; a dry run stores nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.entities import ENTITIES
from openqrm.domain.errors import CommandFailedError, ConflictError, NotFoundError, TimeoutPassedError, UnreachableError
from openqrm.domain.operation import Counter, OperationStatus
from openqrm.domain.operation import Operation as OperationRecord
from openqrm.domain.user import SYSTEM, Actor, User, UserRole
from openqrm.engine.changes import Changes
from openqrm.engine.planning import Planners
from openqrm.plugin_api.facts import Fact
from openqrm.plugin_api.operation import Arguments, Call, Operation, Phase
from openqrm.plugin_api.steps import Change, Command, Plan, Planning, Run, Step
from openqrm.plugin_api.values import Secret
from openqrm.testing import virtual
from openqrm.testing.controller import Site, StoredSecrets
from openqrm.testing.fake_host import FakeHosts, Fault
from openqrm.testing.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.plugin_api.changes import ChangeCall
    from openqrm.plugin_api.operation import PlanContext
    from openqrm.plugin_api.records import Reader, Writer

HERE = __name__
SEEN: list[PlanContext] = []


class GivenArguments(Arguments):
    word: str
    password: str = ""


FREE = Fact(name="free", host=3, argv=("echo", "100"), parse=int)
USED = Fact(name="used", host=4, argv=("false",), parse=int, absent=(1,), missing=0)


def facts(context: PlanContext) -> Sequence[Fact[Any]]:
    return (FREE, USED)


def plan(context: PlanContext) -> Plan:
    SEEN.append(context)
    total = context.facts.get(FREE) + (context.facts.get(USED) or 0)
    lease = context.read.one(Counter, name="lease")
    return Plan(steps=(run("first", str(total), str(lease is not None), context.arguments.word),))


def plan_later(context: PlanContext) -> Plan:
    if context.read.one(Counter, name="made-by-the-first-phase") is None:
        raise NotFoundError("the first phase has not made it yet")
    return Plan(steps=(run("second"),))


def admit(reader: Reader, call: Call) -> Plan:
    arguments = {"called": "lease"}
    return Plan(steps=(Change(name="lease", change="thing.make", arguments=arguments, undo="thing.make"),))


def run(name: str, *words: str) -> Run:
    return Run(name=name, host=1, do=Command(argv=("make", name, *words)), undo=Command(argv=("unmake", name)))


def make_thing(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    if writer.one(Counter, name=str(call.arguments["called"])) is not None:
        raise ConflictError("someone has it")
    return {"id": writer.insert(Counter(name=str(call.arguments["called"]))).id}


DECLARED = Operation(
    name="thing.start",
    title="Start",
    summary="Start a thing",
    arguments=GivenArguments,
    admit=f"{HERE}:admit",
    phases=(Phase("first", f"{HERE}:plan", f"{HERE}:facts"), Phase("later", f"{HERE}:plan_later")),
)


class NoHooks:
    """Nothing is added."""


def planners(database: MemoryDatabase, hosts: FakeHosts) -> Planners:
    return Planners(
        database=database,
        hosts=hosts,
        secrets=StoredSecrets(database),
        operation=lambda name: {DECLARED.name: DECLARED}[name],
        entities=ENTITIES,
        hooks=lambda reader: NoHooks(),  # type: ignore[arg-type,return-value]  # not used by these planners
        drivers=lambda reader: NoHooks(),  # type: ignore[arg-type,return-value]  # not used by these planners
        changes=Changes({"thing.make": make_thing}),
        settings={"url": "https://controller"},
        own_settings=lambda name, reader: {"own": name},
    )


async def test_a_phase_is_planned_from_facts_arguments_and_the_database() -> None:
    SEEN.clear()
    database, hosts = MemoryDatabase(), FakeHosts()
    with database.write() as writer:
        writer.insert(User(name="ann", role=UserRole.OPERATOR))
        writer.insert(Counter(name="lease"))
        writer.put_secret("argument-1", "s3cr3t")
    secret = Secret(key="argument-1")
    record = OperationRecord(
        id=7, name="thing.start", actor="ann", arguments={"word": "x", "password": secret.model_dump(mode="json")}
    )
    made = await planners(database, hosts).plan(record, "first")
    assert made.steps == (run("first", "100", "True", "x"),)
    (context,) = SEEN
    assert context.arguments.password == secret, "a planner never sees a secret's text"
    assert context.actor == Actor("ann", UserRole.OPERATOR, 1)
    assert context.operation_id == 7
    assert context.settings == {"url": "https://controller", "own": "thing.start"}


def test_a_dry_run_waits_for_hosts_a_while_only() -> None:
    database, hosts = MemoryDatabase(), FakeHosts()
    hosts.host(3).delay = 5
    chosen = replace(planners(database, hosts), dry_run_seconds=0.05)
    call = Call("thing.start", SYSTEM, None, GivenArguments(word="x"))
    with pytest.raises(TimeoutPassedError, match="hosts 3, 4 did not say within"):
        chosen.dry_run(DECLARED, call)


def test_facts_are_asked_at_the_same_time() -> None:
    hosts = FakeHosts()
    for number in range(5):
        hosts.host(number).delay = 0.2
    wanted = [Fact(name=f"f{number}", host=number, argv=("echo", str(number)), parse=int) for number in range(5)]

    async def body(loop: virtual.VirtualLoop) -> float:
        found = await planners(MemoryDatabase(), hosts).gather(wanted)
        assert [found.get(fact) for fact in wanted] == [0, 1, 2, 3, 4]
        return loop.time()

    assert virtual.run(body) == pytest.approx(0.2)


async def test_facts_that_cannot_be_had() -> None:
    hosts = FakeHosts()
    chosen = planners(MemoryDatabase(), hosts)
    with pytest.raises(CommandFailedError, match="cannot be read"):
        await chosen.gather([Fact(name="x", host=1, argv=("echo", "many"), parse=int)])
    with pytest.raises(CommandFailedError) as caught:
        await chosen.gather([Fact(name="x", host=1, argv=("false",), parse=int)])
    assert caught.value.output == "false says no"
    hosts.host(1).reachable = False
    with pytest.raises(UnreachableError):
        await chosen.gather([Fact(name="x", host=1, argv=("echo", "1"), parse=int), FREE])


async def test_a_dry_run_shows_admission_and_what_can_be_planned_and_stores_nothing() -> None:
    database, hosts = MemoryDatabase(), FakeHosts()
    chosen = planners(database, hosts)
    chosen.attach()
    call = Call("thing.start", SYSTEM, None, GivenArguments(word="x"))
    steps = await asyncio.to_thread(chosen.dry_run, DECLARED, call)
    assert [step.name for step in steps] == ["lease", "first", "plan-later"]
    assert steps[1] == run("first", "100", "True", "x"), "planned as after the admission"
    assert isinstance(steps[2], Planning)
    assert {request.argv[0] for request in hosts.requests} == {"echo", "false"}, "only facts were asked"
    with database.read() as reader:
        assert reader.count(Counter) == reader.count(OperationRecord) == 0


async def test_a_dry_run_is_refused_as_the_call_would_be() -> None:
    database, hosts = MemoryDatabase(), FakeHosts()
    call = Call("thing.start", SYSTEM, None, GivenArguments(word="x"))
    with database.write() as writer:
        writer.insert(Counter(name="lease"))
    with pytest.raises(ConflictError, match="someone has it"):
        await asyncio.to_thread(planners(database, hosts).dry_run, DECLARED, call)
    with database.write() as writer:
        writer.delete(Counter, 1)
    hosts.faults = lambda request: Fault.BEFORE
    with pytest.raises(UnreachableError):
        await asyncio.to_thread(planners(database, hosts).dry_run, DECLARED, call)


async def test_the_runner_plans_phase_by_phase() -> None:
    database, hosts = MemoryDatabase(), FakeHosts()
    site = Site(database, hosts, {"thing.make": make_thing}, plan=planners(database, hosts).plan)
    steps: list[Step] = [
        Planning(name="plan-first", phase="first"),
        Change(name="made", change="thing.make", arguments={"called": "made-by-the-first-phase"}, undo="thing.make"),
        Planning(name="plan-later", phase="later"),
    ]
    operation = site.enqueue(steps, name="thing.start", arguments={"word": "x"})
    await site.run(threads=2)
    work = site.work(operation.id)
    assert work.operation.status is OperationStatus.DONE
    assert [step.name for step in work.steps] == ["plan-first", "first", "made", "plan-later", "second"]
    assert hosts.host(1).things == {"first": "whole", "second": "whole"}
