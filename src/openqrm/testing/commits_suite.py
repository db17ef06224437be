"""What every Database must do around a commit: events, listeners, secrets, isolation. Part of the records suite."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from openqrm.domain.errors import NotFoundError
from openqrm.domain.event import Event, Severity
from openqrm.domain.operation import Operation
from openqrm.domain.resource import Resource


class CommitsSuite:
    """Events, secrets and who hears of a commit."""

    def test_an_event_says_about_what(self, database: Any) -> None:
        with database.write() as writer:
            operation = writer.insert(Operation(name="resource.add"))
            record = writer.insert(Resource(name="a"))
            writer.event("added", severity=Severity.NOTICE, source="test", about=record, actor="ann", size=3)
            writer.event("done", severity=Severity.INFO, source="test", about=operation)
            writer.event("x" * 200_000 + "\x00", severity=Severity.INFO, source="test", operation_id=operation.id)
        with database.read() as reader:
            added, done, long = reader.find(Event)
        assert (added.subject_kind, added.subject_id, added.actor) == ("resource", record.id, "ann")
        assert (added.severity, added.text, added.data) == (Severity.NOTICE, "added", {"size": 3})
        assert (done.operation_id, long.operation_id) == (operation.id, operation.id)
        assert len(long.text) == 100_000

    def test_listeners_hear_what_was_committed(self, database: Any) -> None:
        heard: list[Any] = []
        stop = database.on_commit(heard.append)
        with database.write() as writer:
            record = writer.insert(Resource(name="a"))
            writer.event("one", severity=Severity.INFO, source="test")
            writer.event("two", severity=Severity.INFO, source="test")
            assert heard == []
        assert ("resource", record.id) in heard[0].touched
        assert [event.text for event in heard[0].events] == ["one", "two"]
        assert heard[0].events[0].id < heard[0].events[1].id
        with pytest.raises(NotFoundError), database.write() as writer:
            writer.update(record, group="g")
            writer.get(Resource, 4711)
        with database.write() as writer:
            writer.find(Resource)
        assert len(heard) == 1
        stop()
        with database.write() as writer:
            writer.delete(Resource, record.id)
        assert len(heard) == 1

    def test_a_failing_listener_harms_nobody(self, database: Any) -> None:
        heard: list[Any] = []

        def fail(commit: object) -> None:
            raise RuntimeError(str(commit))

        database.on_commit(fail)
        database.on_commit(heard.append)
        with database.write() as writer:
            writer.insert(Resource(name="a"))
        assert len(heard) == 1

    def test_secrets(self, database: Any) -> None:
        with database.write() as writer:
            writer.put_secret("a", "one ü")
            writer.put_secret("a", "two ü")
            writer.put_secret("b", "x")
            writer.drop_secret("b")
            writer.drop_secret("b")
        with database.read() as reader:
            assert reader.get_secret("a") == "two ü"
            with pytest.raises(NotFoundError):
                reader.get_secret("b")


class ConcurrencySuite:
    """Transactions do not see each other's halves."""

    def test_a_reader_keeps_what_it_began_with(self, database: Any) -> None:
        with database.write() as writer:
            record = writer.insert(Resource(name="a"))
        with database.read() as reader:
            assert reader.count(Resource) == 1
            with database.write() as writer:
                writer.insert(Resource(name="b"))
                writer.update(record, group="g")
            assert reader.count(Resource) == 1
            assert reader.get(Resource, record.id).group == ""
        with database.read() as reader:
            assert reader.count(Resource) == 2

    def test_read_then_decide_is_safe(self, database: Any) -> None:
        with database.write() as writer:
            record = writer.insert(Resource(name="a"))
        failures: list[BaseException] = []

        def add() -> None:
            try:
                for _ in range(20):
                    with database.write() as writer:
                        seen = writer.get(Resource, record.id)
                        writer.update(seen, cpus=seen.cpus + 1)
                        writer.event("counted", severity=Severity.INFO, source="test")
            except Exception as error:  # noqa: BLE001 - handed to the test's own thread
                failures.append(error)

        threads = [threading.Thread(target=add) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        with database.read() as reader:
            assert reader.get(Resource, record.id).cpus == 160
            assert reader.count(Event) == 160

    def test_reserve_is_find_with_a_limit(self, database: Any) -> None:
        with database.write() as writer:
            for name in ("b", "a"):
                writer.insert(Resource(name=name))
            assert [found.name for found in writer.reserve(Resource, order="name")] == ["a"]
            assert len(writer.reserve(Resource, limit=5, group="")) == 2
            assert writer.reserve(Resource, name="x") == []
