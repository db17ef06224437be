"""Writers get their turn in the order in which they asked."""

from __future__ import annotations

import threading
import time

import pytest

from openqrm.domain.errors import UnavailableError
from openqrm.store.turns import Turns


def test_turns_are_taken_in_order_and_never_two_at_once() -> None:
    turns, order, inside = Turns(), [], threading.Semaphore(1)
    threads = []

    def work(number: int) -> None:
        with turns.turn(10):
            assert inside.acquire(blocking=False), "two at once"
            order.append(number)
            time.sleep(0.002)
            inside.release()

    with turns.turn(1):
        for number in range(20):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert order == list(range(20))


def test_who_waits_too_long_is_refused_and_the_rest_goes_on() -> None:
    turns = Turns()
    with turns.turn(1):
        failed: list[UnavailableError] = []

        def impatient() -> None:
            try:
                with turns.turn(0.01):
                    pass
            except UnavailableError as error:
                failed.append(error)

        thread = threading.Thread(target=impatient)
        thread.start()
        thread.join()
        assert len(failed) == 1
    with turns.turn(0.01):
        pass


def test_an_error_inside_ends_the_turn() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="inside"), turns.turn(1):
        raise ValueError("inside")
    with turns.turn(0.01):
        pass
