"""Work done ahead: results and failures come in order, and the number of items is bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from onnxgain.measure.pipeline import ahead


def test_results_come_in_the_order_of_the_items() -> None:
    def slow_at_first(item: int) -> int:
        time.sleep(0.02 / (item + 1))
        return item * 10

    assert list(ahead(slow_at_first, range(8), workers=4, limit=4)) == [10 * i for i in range(8)]
    assert list(ahead(slow_at_first, [])) == []


def test_calls_run_in_other_threads_and_items_are_consumed_in_this_one() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(3):
            taken.append(threading.get_ident())
            yield i

    ran = list(ahead(lambda _: threading.get_ident(), items()))
    assert set(taken) == {threading.get_ident()}
    assert threading.get_ident() not in ran


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_items_are_taken_than_the_limit_allows(limit: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(10):
            taken.append(i)
            yield i

    for result in ahead(lambda i: i, items(), limit=limit):
        assert len(taken) <= result + 1 + limit
    assert len(taken) == 10


def test_next_call_runs_while_a_result_is_used() -> None:
    started = [threading.Event() for _ in range(3)]
    results = ahead(lambda i: started[i].set(), range(3))
    next(results)
    assert started[1].wait(60)
    results.close()


def test_a_call_that_fails_is_raised_after_the_results_before_it() -> None:
    def fail_at_2(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    received: list[int] = []
    with pytest.raises(ValueError, match="two"):
        received.extend(ahead(fail_at_2, range(9), limit=4, workers=2))
    assert received == [0, 1]


def test_items_that_fail_are_raised_after_the_results_before_them() -> None:
    def items() -> Iterator[int]:
        yield 0
        yield 1
        raise ValueError("no more")

    received: list[int] = []
    with pytest.raises(ValueError, match="no more"):
        received.extend(ahead(lambda i: i, items(), limit=4))
    assert received == [0, 1]


def test_closing_waits_for_running_calls_and_drops_the_others() -> None:
    running, finished, called = threading.Event(), threading.Event(), []

    def work(item: int) -> None:
        called.append(item)
        if item == 1:
            running.set()
            time.sleep(0.05)
            finished.set()

    results = ahead(work, range(9), limit=5)
    next(results)
    assert running.wait(60)
    results.close()
    assert finished.is_set()
    assert called == [0, 1]


def test_work_is_done_in_this_thread_if_no_other_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert list(ahead(lambda i: (i, threading.get_ident()), range(3))) == [(i, threading.get_ident()) for i in range(3)]
    with pytest.raises(ZeroDivisionError):
        list(ahead(lambda i: 1 // i, range(3)))
