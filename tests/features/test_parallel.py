"""Batches side by side: in order, few at a time, and torch's threads as before."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest
import torch

from zooft.features import parallel


@pytest.fixture(autouse=True)
def threads() -> Iterator[int]:
    """Four of torch's, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield 4
    left = torch.get_num_threads()
    torch.set_num_threads(before)
    assert left == 4


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_come_in_order_whoever_is_done_first(count: int) -> None:
    def slower_at_first(number: int) -> int:
        time.sleep(0.02 / (1 + number))
        return number**2

    found = list(parallel.map_in_order(range(12), slower_at_first, count=count))
    assert found == [number**2 for number in range(12)]


def test_as_many_run_at_once_as_there_are_lanes() -> None:
    together = threading.Barrier(3, timeout=300)  # breaks where one waits alone
    assert len(list(parallel.map_in_order(range(6), lambda _: together.wait(), count=3))) == 6


def test_one_item_is_taken_ahead_and_no_more() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    for number in parallel.map_in_order(items(), lambda number: number, count=2):
        assert taken[-1] <= number + 2


def test_torchs_threads_are_divided_meanwhile() -> None:
    for count, each in [(2, 2), (3, 1), (4, 1), (5, 1)]:
        assert list(parallel.map_in_order(range(4), lambda _: torch.get_num_threads(), count=count)) == [each] * 4


def test_what_fails_is_raised_and_nothing_is_left_running() -> None:
    ended = []

    def fails_at_two(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        time.sleep(0.01)
        ended.append(number)
        return number

    before = threading.active_count()
    with pytest.raises(ValueError, match="two"):
        list(parallel.map_in_order(range(4), fails_at_two, count=2))
    assert {0, 1} <= set(ended)
    assert threading.active_count() == before


def test_items_that_fail_are_raised_too() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(parallel.map_in_order(items(), lambda number: number, count=2))


def test_who_has_enough_may_leave() -> None:
    before = threading.active_count()
    found = parallel.map_in_order(range(100), lambda number: number, count=2)
    assert next(found) == 0
    found.close()
    assert threading.active_count() == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals to a thread")
def test_ctrl_c_waits_for_what_has_begun_and_leaves_the_rest() -> None:
    begun: list[int] = []
    go_on, heard = threading.Event(), threading.Event()

    def waits(number: int) -> None:
        begun.append(number)
        assert go_on.wait(300)

    def interrupts() -> None:
        while len(begun) < 2:
            time.sleep(0.01)
        time.sleep(0.1)  # the third is handed in meanwhile
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        assert heard.wait(300)
        time.sleep(0.3)  # from there to leaving the rest
        go_on.set()

    def interrupt(number: int, frame: FrameType | None) -> None:
        heard.set()
        signal.default_int_handler(number, frame)

    other = threading.Thread(target=interrupts)
    before = signal.signal(signal.SIGINT, interrupt)  # a shell's background jobs begin without one
    try:
        other.start()
        with pytest.raises(KeyboardInterrupt):
            list(parallel.map_in_order(range(10), waits, count=2))
        other.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert sorted(begun) == [0, 1]


def test_a_cpu_has_two_lanes_if_it_has_two_threads_and_other_devices_one(threads: int) -> None:
    assert parallel.parallel_batches(torch.device("cpu")) == 2
    assert parallel.parallel_batches(torch.device("cuda")) == 1
    torch.set_num_threads(1)
    assert parallel.parallel_batches(torch.device("cpu")) == 1
    torch.set_num_threads(threads)
