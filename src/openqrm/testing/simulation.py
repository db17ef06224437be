"""Random plans, faults, crashes and take-overs from a seed, on virtual time, with the invariants they must keep."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openqrm.domain.entities import ENTITIES
from openqrm.domain.errors import ConflictError
from openqrm.domain.operation import Counter, Operation, OperationStatus, StepStatus
from openqrm.engine import requests
from openqrm.engine.journal import RUNNABLE
from openqrm.plugin_api.changes import Progress
from openqrm.plugin_api.steps import Change, Command, Gate, Irreversible, Plan, Planning, Run, Step, Wait, Write
from openqrm.plugin_api.values import Output
from openqrm.testing.controller import Site
from openqrm.testing.crash import CrashingJournal, drop
from openqrm.testing.fake_host import FakeHosts, Fault, Request
from openqrm.testing.memory import MemoryDatabase

if TYPE_CHECKING:
    from openqrm.engine.ports import Finished, GateToken, Ready
    from openqrm.engine.runner import Runner
    from openqrm.plugin_api.changes import ChangeCall
    from openqrm.plugin_api.records import Reader, Writer
    from openqrm.testing.virtual import VirtualLoop

NAMES = ("operation", "step", "operation-target", "controller", "counter", "event")
RECORDS = {name: ENTITIES[name] for name in NAMES}
"""Only what the engine needs: a small database is a fast one."""


def make_thing(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """A change that may be broken for good."""
    name = str(call.arguments["name"])
    if call.arguments.get("broken"):
        raise ConflictError("this change never works")
    return {"id": writer.insert(Counter(name=name)).id, "name": name}


def unmake_thing(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """Its undo."""
    writer.delete(Counter, int(call.output["id"]))
    return {}


def thing_there(reader: Reader, call: ChangeCall) -> Progress:
    """Waits for a signal."""
    return Progress(done=reader.count(Counter, name=call.arguments["name"]) > 0)


def _must(condition: bool, why: object) -> None:
    if not condition:
        raise AssertionError(str(why))


CHANGES = {"thing.make": make_thing, "thing.unmake": unmake_thing}
CONDITIONS = {"thing.there": thing_there}


@dataclass
class SleepyHosts:
    """What a controller sees that is stopped now and then for a while, just before a command leaves it."""

    hosts: FakeHosts
    rng: random.Random

    async def _stopped(self) -> None:
        if self.rng.random() < 0.25:
            await asyncio.sleep(self.rng.choice([5, 20, 60]))

    async def run(self, host: int, command: Ready, *, gate: GateToken | None, seconds: float) -> Finished:
        """See `Hosts`."""
        await self._stopped()
        return await self.hosts.run(host, command, gate=gate, seconds=seconds)

    async def read_file(self, host: int, path: str, *, seconds: float) -> tuple[str, str] | None:
        """See `Hosts`."""
        return await self.hosts.read_file(host, path, seconds=seconds)

    async def write_file(
        self, host: int, path: str, content: str | None, mode: str, *, gate: GateToken | None, seconds: float
    ) -> None:
        """See `Hosts`."""
        await self._stopped()
        await self.hosts.write_file(host, path, content, mode, gate=gate, seconds=seconds)

    async def send_file(self, host: int, source: str, path: str, *, seconds: float) -> None:
        """See `Hosts`."""
        await self.hosts.send_file(host, source, path, seconds=seconds)


@dataclass
class Scenario:
    """One seed's world."""

    seed: int
    loop: VirtualLoop
    rng: random.Random = field(init=False)
    site: Site = field(init=False)
    hosts: FakeHosts = field(init=False)
    phases: dict[int, list[Step]] = field(default_factory=dict)
    operations: list[int] = field(default_factory=list)
    volumes: dict[int, str] = field(default_factory=dict)
    serial: int = 0
    quiet: bool = False

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)  # noqa: S311  # reproducible, not secret
        rates = self.rng.choice([0.0, 0.05, 0.2, 0.5])
        self.hosts = FakeHosts(faults=lambda request: self._fault(request, rates))
        for number in range(3):
            self.hosts.host(number).delay = self.rng.choice([0, 0, 0.5, 5])
        database = MemoryDatabase(RECORDS, clock=self.loop.now)
        self.site = Site(database, self.hosts, CHANGES, CONDITIONS, self._plan)

    def _fault(self, request: Request, rate: float) -> Fault | None:
        del request
        if self.quiet or self.rng.random() >= rate:
            return None
        return self.rng.choice([Fault.BEFORE, Fault.DURING, Fault.AFTER, Fault.STATUS, Fault.HANG])

    async def _plan(self, operation: Operation, phase: str) -> Plan:
        del phase
        return Plan(steps=tuple(self.phases[operation.id]))

    # Plans

    def step(self, volume: str, generation: int) -> Step:
        """A random step."""
        self.serial += 1
        name = f"s{self.serial}"
        kind = self.rng.choice(["run", "run", "gated", "grant", "write", "change", "wait"])
        gate = Gate(volume=volume, generation=generation)
        host = self.rng.randint(1, 2)
        if kind == "write":
            return Write(
                name=name, host=host, path=f"/f{self.rng.randint(1, 3)}-{volume}", content=f"by {name}", gate=gate
            )
        if kind == "change":
            broken = self.rng.random() < 0.1
            arguments = {"name": f"thing-{name}", "broken": broken}
            return Change(name=name, change="thing.make", arguments=arguments, undo="thing.unmake")
        if kind == "wait":
            return self._wait(name)
        if kind == "grant":
            do, undo = Command(argv=("grant", volume, name)), Command(argv=("revoke", volume))
            return Run(name=name, host=1, do=do, undo=undo, gate=gate)
        gone = self.rng.random() < 0.1
        undone = Irreversible(reason="it is gone") if gone else Command(argv=("unmake", name))
        verify = Command(argv=("made", name)) if self.rng.random() < 0.5 else None
        return Run(name=name, host=host, do=Command(argv=("make", name)), undo=undone, verify=verify, gate=gate)

    def _wait(self, name: str) -> Wait:
        wanted = f"signal-{name}"
        after = self.rng.choice([0.1, 1, 30, 10_000])
        self.loop.call_later(after, self._signal, wanted)
        return Wait(name=name, condition="thing.there", arguments={"name": wanted}, timeout=60)

    def _signal(self, name: str) -> None:
        with self.site.database.write() as writer:
            writer.insert(Counter(name=name))

    def enqueue(self, number: int) -> None:
        """A random operation; its number is its id."""
        volume = f"v{self.rng.randint(1, 2)}"
        steps: list[Step] = [self.step(volume, 1) for _ in range(self.rng.randint(1, 5))]
        if self.rng.random() < 0.4:
            place = self.rng.randint(0, len(steps))
            steps.insert(place, Planning(name="planning", phase="more"))
            made = [step.name for step in steps[:place] if step.kind == "change"]
            later: list[Step] = [self.step(volume, 1) for _ in range(self.rng.randint(0, 3))]
            if made:
                self.serial += 1
                echo = Command(argv=("echo", Output(step=made[0], field="name")))
                later.append(Run(name=f"s{self.serial}", host=1, do=echo, undo=Command(argv=("true",))))
            self.phases[number] = later
        forward = self.rng.random() < 0.15
        nothing = Command(argv=("true",))
        if isinstance(steps[0], Change):  # a leading change acts when it is enqueued, and a broken one refuses that
            steps.insert(0, Run(name=f"first{number}", host=1, do=nothing, undo=nothing))
        operation = self.site.enqueue(steps, targets=[volume], forward_only=forward)
        self.operations.append(operation.id)
        self.volumes[operation.id] = volume

    # Driving

    def controller(self, number: int, at: int | None, *, late: bool = False) -> tuple[Runner, CrashingJournal]:
        """A controller that dies at a boundary, or one that is late now and then."""
        journal = CrashingJournal(self.site.journal, at)
        ports: dict[str, Any] = {"poll_seconds": 20}
        if late:
            ports["hosts"] = SleepyHosts(self.hosts, self.rng)
        options = {"alone": False, "lease_seconds": 40, "poll_seconds": 15, "ports": ports}
        return self.site.runner(journal=journal, owner=f"c{number}", **options), journal

    def maybe_cancel(self) -> None:
        """Sometimes someone changes their mind."""
        if self.rng.random() < 0.2:
            self.loop.call_later(
                self.rng.choice([0.0, 0.05, 2.0, 20.0]), self._cancel, self.rng.choice(self.operations)
            )

    def _cancel(self, operation: int) -> None:
        try:
            with self.site.database.write() as writer:
                requests.cancel(writer, operation)
        except ConflictError:
            return

    async def play(self) -> None:
        """Enqueue, run under faults and crashes, then let a quiet world finish; check on the way."""
        for number in range(1, self.rng.randint(1, 3) + 1):
            self.enqueue(number)
        self.maybe_cancel()
        settled = asyncio.ensure_future(self.site.settle())
        human = asyncio.ensure_future(self.human())
        for number in range(1, self.rng.choice([0, 0, 1, 2]) + 1):
            late = self.rng.random() < 0.4
            runner, journal = self.controller(number, None if late else self.rng.randint(0, 25), late=late)
            await runner.start()
            crashed = asyncio.ensure_future(journal.crashed.wait())
            limit = self.rng.choice([0.3, 3.0, 30.0]) if late else None
            await asyncio.wait({settled, crashed}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            crashed.cancel()
            if late:
                self.given_up(runner)
            else:
                drop(runner)
        runner, _ = self.controller(99, None)
        await runner.start()
        await settled
        human.cancel()
        self.check()
        self.quiet = True
        for _ in range(8):  # one that only goes forward may meet several hopeless steps
            self.decide()
            await self.site.settle()
        await runner.stop()
        self.check()
        ended = {OperationStatus.DONE, OperationStatus.FAILED, OperationStatus.ABANDONED}
        statuses = {self.site.status(operation) for operation in self.operations}
        _must(statuses <= ended, statuses)

    def given_up(self, runner: Runner) -> None:
        """A controller that is taken for dead, but goes on with what it has: the next one is told it is alone."""
        for task in runner.tasks:
            task.cancel()
        self.site.journal.leave(runner.owner)

    async def human(self) -> None:
        """Now and then someone looks at what needs attention: others may wait behind it."""
        while True:
            await asyncio.sleep(500)
            self.decide()

    def decide(self) -> None:
        """Resume, or abandon what cannot work. In a world without faults resuming must end it."""
        for operation in self.operations:
            if self.site.status(operation) is OperationStatus.ATTENTION:
                with self.site.database.write() as writer:
                    if self.hopeless(operation) or (not self.quiet and self.rng.random() < 0.2):
                        requests.abandon(writer, operation)
                    else:
                        requests.resume(writer, operation)

    def hopeless(self, operation: int) -> bool:
        """A forward-only operation with a step that cannot work: a broken change, a signal that never comes."""
        work = self.site.work(operation)
        return work.operation.forward_only and any(
            step.status is StepStatus.STUCK and (step.body.get("arguments", {}).get("broken") or step.kind == "wait")
            for step in work.steps
        )

    # Invariants

    def check(self) -> None:
        """All invariants, once nothing is under way."""
        self.check_gates()
        self.check_order()
        for operation in self.operations:
            status = self.site.status(operation)
            _must(status not in RUNNABLE, status)
            if status is OperationStatus.DONE:
                self.check_done(operation)
            if status is OperationStatus.FAILED:
                self.check_undone(operation)

    def in_place(self, operation: int) -> dict[str, bool]:
        """Which steps' effects are there. Files and grants are shared, so they count only if they are this step's."""
        found: dict[str, bool] = {}
        with self.site.database.read() as reader:
            for record in self.site.work(operation).steps:
                body, disk = record.body, self.hosts.host(int(record.body.get("host", 0)))
                if record.kind == "run" and body["do"]["argv"][0] == "make":
                    found[record.name] = disk.things.get(record.name) == "whole"
                    if record.status in (StepStatus.UNDONE, StepStatus.PENDING):
                        found[record.name] = record.name in disk.things
                elif record.kind == "change":
                    found[record.name] = reader.count(Counter, name=f"thing-{record.name}") > 0
        return found

    def check_done(self, operation: int) -> None:
        """Every effect is in place."""
        _must(all(self.in_place(operation).values()), self.in_place(operation))

    def check_undone(self, operation: int) -> None:
        """No effect is left but those that cannot be undone."""
        left = {name for name, there in self.in_place(operation).items() if there}
        steps = {step.name: step for step in self.site.work(operation).steps}
        for name in left:
            undo = steps[name].body["undo"]
            _must(isinstance(undo, dict) and "reason" in undo, f"{name} is still there")
        mine = {f"by {name}" for name in steps}
        contents = {content for host in self.hosts.hosts.values() for content, _ in host.files.values()}
        _must(not mine & contents, "a file was not restored")
        holders = {client for host in self.hosts.hosts.values() for client, _, _ in host.grants.values()}
        _must(not set(steps) & holders, "a grant is left over")

    def check_order(self) -> None:
        """Operations on one volume came one after the other."""
        ended: dict[str, Any] = {}
        for number in self.operations:
            operation, volume = self.site.work(number).operation, self.volumes[number]
            if volume in ended and operation.started_at is not None:
                _must(ended[volume] is not None and operation.started_at >= ended[volume], f"{number} overtook another")
            ended[volume] = operation.finished_at

    def check_gates(self) -> None:
        """Effects behind a gate never went back in generation or epoch."""
        last: dict[tuple[int, str], tuple[int, int]] = {}
        for effect in self.hosts.effects:
            if effect.gate is not None:
                key, order = (effect.host, effect.gate.volume), (effect.gate.generation, effect.gate.epoch)
                _must(order >= last.get(key, (0, 0)), f"out of order: {effect}")
                last[key] = order


async def play(loop: VirtualLoop, seed: int) -> Scenario:
    """Play a seed to its end; AssertionError when an invariant does not hold."""
    scenario = Scenario(seed, loop)
    await scenario.play()
    return scenario
