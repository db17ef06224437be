"""Heartbeats on both databases."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from openqrm.domain.errors import UnavailableError
from openqrm.store.health import HealthStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Beat:
    """A heartbeat as a machine sends it."""

    uptime: float = 1.5
    load: float = 0.25
    memory_total: int = 2**33
    memory_available: int = 2
    swap_total: int = 3
    swap_free: int = 4
    cpus: int = 5
    nics: int = 6


@pytest.fixture
def store(sql_url: str) -> Iterator[HealthStore]:
    """An empty store, on each real database in turn."""
    opened = HealthStore.beside(sql_url)
    yield opened
    opened.close()


def test_the_newest_is_kept(store: HealthStore) -> None:
    later = START + timedelta(seconds=10)
    store.put_many([(1, START, Beat()), (2, START, Beat(load=1)), (1, later, Beat(load=7))])
    store.put_many([(1, START, Beat(load=3)), (2, later, Beat(load=2))])
    found = store.latest([1, 2, 3])
    assert found.keys() == {1, 2}
    assert (found[1].load, found[1].at, found[2].load) == (7, later, 2)
    assert (found[1].memory_total, found[1].uptime, found[1].nics) == (2**33, 1.5, 6)
    assert store.latest([]) == {}


def test_who_is_silent(store: HealthStore) -> None:
    store.record({1: Beat(), 2: Beat()}, START)
    store.record({2: Beat()}, START + timedelta(seconds=30))
    assert store.last_seen() == {1: START, 2: START + timedelta(seconds=30)}
    store.forget(1)
    store.record({}, START)
    assert store.last_seen().keys() == {2}


def test_it_is_there_after_a_restart(sql_url: str) -> None:
    first = HealthStore.beside(sql_url)
    first.record({1: Beat()}, START)
    first.close()
    second = HealthStore.beside(sql_url)
    assert second.last_seen() == {1: START}
    second.close()


def test_several_threads(store: HealthStore) -> None:
    def beat(first: int) -> None:
        for number in range(20):
            store.record({first + one: Beat() for one in range(50)}, START + timedelta(seconds=number))

    threads = [threading.Thread(target=beat, args=(first,)) for first in (0, 25, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.last_seen() == dict.fromkeys(range(100), START + timedelta(seconds=19))


def test_it_is_fast(store: HealthStore) -> None:
    """Far below what was measured (over 100,000 a second), so that a busy machine does not fail it."""
    beats = {number: Beat() for number in range(5000)}
    began = time.perf_counter()
    for number in range(4):
        store.record(beats, START + timedelta(seconds=number))
    assert 20_000 / (time.perf_counter() - began) > 5_000


def test_a_broken_file_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "a-health.db").write_bytes(b"not a database" * 1000)
    store = HealthStore.beside(f"sqlite:///{tmp_path}/a.db")
    store.record({1: Beat()}, START)
    assert store.last_seen() == {1: START}
    store.close()


def test_away() -> None:
    with pytest.raises(UnavailableError):
        HealthStore.beside("sqlite:////nonexistent/a.db")
    with pytest.raises(UnavailableError):
        HealthStore.beside("postgresql://nobody@127.0.0.1:9/none")
