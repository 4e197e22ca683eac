"""Batches through frozen stages side by side: on a CPU each with its part of the threads.

Threads that share a batch wait for each other behind every layer, and all of them while the next batch is read. Apart
from each other they don't.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")
MOST = 2
"""Batches at a time: each holds a batch's activations in memory."""


def parallel_batches(device: torch.device) -> int:
    """How many batches are computed at a time."""
    return min(MOST, torch.get_num_threads()) if device.type == "cpu" else 1


def map_in_order(items: Iterable[A], run: Callable[[A], B], *, count: int) -> Generator[B]:
    """What `run` makes of every item, in their order; items are taken in the caller's thread, one ahead.

    Args:
        items: such as batches.
        run: may be called by several threads at once.
        count: how many run at a time. With several, each, and the caller's thread, has that part of torch's threads
            until the last result is taken.

    Raises:
        Whatever `items` or `run` raise, once what has begun has ended; what hasn't is left.
    """
    if count == 1:
        yield from map(run, items)
        return
    with _threads_each(count):
        pool = ThreadPoolExecutor(count)
        waiting = deque[Future[B]]()
        try:
            for item in items:
                waiting.append(pool.submit(run, item))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _threads_each(count: int) -> Iterator[None]:
    """Divide the threads of torch among so many; a thread that begins later takes over what is set."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
