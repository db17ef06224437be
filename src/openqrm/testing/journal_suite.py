"""What every journal must do. Subclass, and give a fixture `journal` whose database has a settable clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.errors import ConflictError, NotFoundError, StaleError, UnavailableError
from openqrm.domain.operation import Counter, Operation, OperationStatus, OperationTarget, StepStatus
from openqrm.engine.changes import Changes
from openqrm.engine.commits import Commit
from openqrm.engine.core import DEFAULT
from openqrm.engine.execution import Outcome
from openqrm.engine.journal import Hold
from openqrm.engine.messages import Claimed, Failed, Finish, Succeeded
from openqrm.plugin_api.operation import shared
from openqrm.plugin_api.steps import KINDS, Change, Command, Run
from openqrm.plugin_api.values import Output

if TYPE_CHECKING:
    from openqrm.engine.journal import Journal
    from openqrm.engine.messages import Decision
    from openqrm.engine.ports import Database
    from openqrm.engine.work import Work
    from openqrm.plugin_api.changes import ChangeCall
    from openqrm.plugin_api.records import Writer


@dataclass
class TestClock:
    """A clock that stands still until it is moved."""

    __test__ = False
    time: datetime = field(default_factory=lambda: datetime(2026, 1, 1, tzinfo=UTC))

    def __call__(self) -> datetime:
        """The time, UTC."""
        return self.time

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.time += timedelta(seconds=seconds)


@dataclass
class JournalUnderTest:
    """A journal, its database and the database's clock."""

    journal: Journal
    database: Database
    clock: TestClock

    def enqueue(self, *targets: str, steps: list[Any] | None = None, **fields: Any) -> Operation:
        """An operation of one step."""
        with self.database.write() as writer:
            operation = Operation(name="test.run", **fields)
            return self.journal.enqueue(writer, operation, steps or [run("one")], targets, changes=CHANGES)

    def claim(self, owner: str = "a", limit: int = 10) -> list[Work]:
        """Claim, as a living controller."""
        self.journal.beat(owner, 10)
        return list(self.journal.claim(owner, limit))

    def advance(self, work: Work, *events: Any, owner: str = "a") -> tuple[Work, Decision]:
        """Record events, one transaction each."""
        decision: Decision | None = None
        for event in (Claimed(), *events) if work.operation.status == "queued" else events:
            commit = Commit(work, CHANGES, DEFAULT, Outcome(event))
            work, decision = self.journal.record(hold(work, owner), commit)
        assert decision is not None
        return work, decision


def run(name: str, **fields: Any) -> Run:
    """A step."""
    undo = Command(argv=("unmake", name))
    return Run(name=name, host=1, do=Command(argv=("make", name)), undo=undo, **fields)


def hold(work: Work, owner: str = "a") -> Hold:
    """The hold a claim gave."""
    return Hold(work.operation.id, owner, work.operation.epoch)


def _make(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    made = writer.insert(Counter(name=str(call.arguments["called"])))
    return {"id": made.id, "name": made.name, "next": f"after-{made.id}"}


def _refuse(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    writer.insert(Counter(name="made-before-the-refusal"))
    raise ConflictError("someone has it", field=str(call.arguments.get("field", "")))


CHANGES = Changes({"thing.make": _make, "thing.refuse": _refuse})


def change(name: str, function: str = "thing.make", **arguments: Any) -> Change:
    """A change step."""
    return Change(name=name, change=function, arguments=arguments, undo="thing.make")


class JournalSuite:
    """Run for the dictionary, SQLite and PostgreSQL."""

    def test_a_claim_brings_the_work_oldest_first_up_to_the_limit(self, journal: JournalUnderTest) -> None:
        """Ids, steps in order, owner."""
        operations = [journal.enqueue(f"thing-{number}", steps=[run("b"), run("a")]) for number in range(3)]
        claimed = journal.claim(limit=2)
        assert [work.operation.id for work in claimed] == [operation.id for operation in operations[:2]]
        assert [step.name for step in claimed[0].steps] == ["b", "a"]
        assert {work.operation.owner for work in claimed} == {"a"}
        assert len(journal.claim(limit=10)) == 1
        assert journal.claim() == []

    def test_every_claim_has_a_higher_epoch(self, journal: JournalUnderTest) -> None:
        """Also of another operation, also after a release."""
        journal.enqueue("thing-1")
        journal.enqueue("thing-2")
        epochs: list[int] = []
        for _ in range(3):
            claimed = journal.claim()
            epochs += [work.operation.epoch for work in claimed]
            for work in claimed:
                journal.journal.release(hold(work))
        assert epochs == sorted(set(epochs))
        assert len(epochs) == 6

    def test_in_order_per_target(self, journal: JournalUnderTest) -> None:
        """The second waits until the first is over, a third with another target does not."""
        first = journal.enqueue("thing-1", "thing-2")
        second = journal.enqueue("thing-2")
        third = journal.enqueue("thing-3")
        claimed = journal.claim()
        assert [work.operation.id for work in claimed] == [first.id, third.id]
        _, decision = journal.advance(claimed[0], Succeeded())
        assert decision.command == Finish(OperationStatus.DONE)
        assert [work.operation.id for work in journal.claim()] == [second.id]

    def test_those_that_share_a_target_exclude_others_only(self, journal: JournalUnderTest) -> None:
        """Not each other; in order all the same. One that names it both ways does not share it."""
        names = (shared("thing-1"), shared("thing-1"), "thing-1", shared("thing-1"))
        first, second, alone, last = (journal.enqueue(name) for name in names)
        both = journal.enqueue("thing-2", shared("thing-2"))
        behind = journal.enqueue(shared("thing-2"))
        claimed = {work.operation.id: work for work in journal.claim()}
        assert list(claimed) == [first.id, second.id, both.id]
        journal.advance(claimed[first.id], Succeeded())
        assert journal.claim() == []
        journal.advance(claimed[second.id], Succeeded())
        (work,) = journal.claim()
        assert work.operation.id == alone.id
        journal.advance(work, Succeeded())
        journal.advance(claimed[both.id], Succeeded())
        assert [work.operation.id for work in journal.claim()] == [last.id, behind.id]

    def test_one_that_needs_attention_keeps_others_waiting(self, journal: JournalUnderTest) -> None:
        """Until it is resumed or abandoned."""
        journal.enqueue("thing-1")
        journal.enqueue("thing-1")
        (work,) = journal.claim()
        final = Failed({"code": "x", "detail": "broken"}, retryable=False)
        work, _ = journal.advance(work, final, final)
        assert work.operation.status is OperationStatus.ATTENTION
        assert work.operation.owner is None
        assert journal.claim() == []
        with journal.database.read() as reader:
            assert reader.count(OperationTarget) == 2

    def test_a_stale_hold_changes_nothing(self, journal: JournalUnderTest) -> None:
        """Another owner, an earlier epoch."""
        journal.enqueue("thing-1")
        (mine,) = journal.claim("a")
        journal.clock.move(11)
        (theirs,) = journal.claim("b")
        assert theirs.operation.id == mine.operation.id
        assert theirs.operation.epoch > mine.operation.epoch
        with pytest.raises(StaleError):
            journal.advance(mine)
        stored = journal.journal.load(mine.operation.id)
        assert (stored.operation.status, stored.operation.owner) == (OperationStatus.QUEUED, "b")
        journal.journal.release(hold(mine))
        assert journal.journal.load(mine.operation.id).operation.owner == "b"
        journal.advance(theirs, owner="b")

    def test_a_living_controller_keeps_its_work(self, journal: JournalUnderTest) -> None:
        """As long as it says so."""
        journal.enqueue("thing-1")
        journal.claim("a")
        for _ in range(5):
            journal.clock.move(9)
            journal.journal.beat("a", 10)
            assert journal.claim("b") == []

    def test_a_controller_that_is_not_alive_claims_nothing(self, journal: JournalUnderTest) -> None:
        """Not even its own work, which it is still at."""
        journal.enqueue("thing-1")
        journal.claim("a")
        journal.enqueue("thing-2")
        journal.clock.move(11)
        assert not journal.journal.claim("a", 10)
        journal.journal.beat("a", 10)
        assert [work.operation.id for work in journal.journal.claim("a", 10)] == [2]

    def test_leaving_and_being_sole_free_work_at_once(self, journal: JournalUnderTest) -> None:
        """Without waiting for a lease to expire."""
        journal.enqueue("thing-1")
        assert len(journal.claim("a")) == 1
        journal.journal.leave("a")
        assert len(journal.claim("b")) == 1
        journal.journal.beat("c", 10)
        journal.journal.sole("c")
        assert len(journal.claim("c")) == 1

    def test_unknown_kinds_and_newer_versions_are_left_alone(self, journal: JournalUnderTest) -> None:
        """For a controller that knows them."""
        journal.enqueue("thing-1", steps=[run("one", version=2)])
        journal.enqueue("thing-2", steps=[change("two", called="two"), run("three")])
        assert [work.operation.id for work in journal.claim("a")] == [2]
        journal.journal.release(hold(journal.journal.load(2)))
        assert not journal.journal.claim("a", 10, {**KINDS, "run": 0})
        assert [work.operation.id for work in journal.journal.claim("a", 10, {**KINDS, "run": 2})] == [1, 2]

    def test_a_decision_and_what_it_changes_commit_together(self, journal: JournalUnderTest) -> None:
        """Consecutive changes act in the transaction that records the step before them."""
        journal.enqueue("thing-1", steps=[run("one"), change("two", called="two"), change("three", called="three")])
        (work,) = journal.claim()
        work, _ = journal.advance(work)
        assert journal.journal.load(work.operation.id).steps[0].status is StepStatus.ACTING
        work, _ = journal.advance(work, Succeeded({"stdout": "made"}))
        stored = journal.journal.load(work.operation.id)
        assert stored.operation.status is OperationStatus.DONE
        assert stored.operation.progress == 100
        assert stored.operation.owner is None
        assert [step.output.get("name") for step in stored.steps] == [None, "two", "three"]
        assert stored.steps[0].output == {"stdout": "made"}
        with journal.database.read() as reader:
            assert reader.count(Counter, name__in=["two", "three"]) == 2
            assert reader.count(OperationTarget) == 0

    def test_admitted_changes_act_in_the_transaction_that_enqueues(self, journal: JournalUnderTest) -> None:
        """And see the outputs of those before them."""
        before = Output(step="one", field="next").model_dump(mode="json")
        steps = [change("one", called="first"), change("two", called=before), run("three")]
        operation = journal.enqueue("thing-1", steps=steps)
        stored = journal.journal.load(operation.id)
        assert [step.status for step in stored.steps] == [StepStatus.DONE, StepStatus.DONE, StepStatus.PENDING]
        assert stored.steps[1].output["name"] == stored.steps[0].output["next"]

    def test_a_refused_admission_leaves_no_trace(self, journal: JournalUnderTest) -> None:
        """No operation, no step, no change."""
        with pytest.raises(ConflictError):
            journal.enqueue("thing-1", steps=[change("one", called="x"), change("two", "thing.refuse")])
        with journal.database.read() as reader:
            assert reader.count(Operation) == reader.count(OperationTarget) == reader.count(Counter) == 0

    def test_one_failure_in_a_common_transaction_is_its_own(self, journal: JournalUnderTest) -> None:
        """The others are recorded."""
        journal.enqueue("thing-1", steps=[run("one"), change("two", "thing.refuse")])
        journal.enqueue("thing-2")
        journal.enqueue("thing-3")
        works = [journal.advance(work)[0] for work in journal.claim()]
        holds = [hold(works[0]), hold(works[1]), Hold(works[2].operation.id, "b", 1)]
        commits = [Commit(work, CHANGES, DEFAULT, Outcome(Succeeded())) for work in works]
        results = journal.journal.record_all(list(zip(holds, commits, strict=True)))
        assert isinstance(results[0], Exception)
        assert not isinstance(results[1], Exception)
        assert isinstance(results[2], StaleError)
        states = [journal.journal.load(work.operation.id).operation.status for work in works]
        assert states == [OperationStatus.RUNNING, OperationStatus.DONE, OperationStatus.RUNNING]
        with journal.database.read() as reader:
            assert reader.one(Counter, name="made-before-the-refusal") is None

    def test_a_missing_operation(self, journal: JournalUnderTest) -> None:
        """Is not found, and its hold is stale."""
        with pytest.raises(NotFoundError):
            journal.journal.load(4711)
        with pytest.raises(StaleError):
            journal.journal.record(Hold(4711, "a", 1), lambda writer, operation: writer.update(operation, progress=1))

    def test_a_body_that_raises_changes_nothing(self, journal: JournalUnderTest) -> None:
        """The transaction is rolled back."""
        journal.enqueue("thing-1")
        (work,) = journal.claim()

        def body(writer: Writer, operation: Operation) -> None:
            writer.update(operation, progress=50)
            raise UnavailableError("the disk is full")

        with pytest.raises(UnavailableError):
            journal.journal.record(hold(work), body)
        assert journal.journal.load(work.operation.id).operation.progress == 0
