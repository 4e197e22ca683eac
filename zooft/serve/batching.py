"""Requests of several clients as one batch, each with its own answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.serve.limits import RequestRefused, busy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Arrays
    from zooft.serve.limits import Limits

Run = Callable[..., Mapping[str, "NDArray[Any]"]]
"""A batch, one array a port, to outputs by name."""


@dataclass(slots=True, eq=False)
class _Request:
    """One client's samples, waiting."""

    arrays: Arrays
    arrived: float
    answer: asyncio.Future[Mapping[str, NDArray[Any]]]

    @property
    def rows(self) -> int:
        return len(self.arrays[0])

    @property
    def kind(self) -> tuple[tuple[int, ...], ...]:
        """What must be the same of all samples of a batch."""
        return tuple(array.shape[1:] for array in self.arrays)


class Batcher:
    """Joins requests to batches for one open file, first come, first served.

    A request waits until its batch is full, or `Limits.delay` seconds. While one batch is computed, the next gathers.

    Args:
        run: that answers a batch; called in one thread, one batch after the other.
        limits: of batch, delay, queue and time.
        report: called with the number of samples of each batch.
    """

    def __init__(self, run: Run, limits: Limits, *, report: Callable[[int], None] = lambda _rows: None) -> None:
        self._run, self._limits, self._report = run, limits, report
        self._waiting: deque[_Request] = deque()
        self._arrival = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="zooft-batch")

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    async def answer(self, arrays: Arrays) -> Mapping[str, NDArray[Any]]:
        """Outputs by name for a request's samples: one array a port, with the batch axis.

        Raises:
            RequestRefused: too many wait, or it took too long.
            RuntimeModelError: the network can't answer these samples.
        """
        if len(self._waiting) >= self._limits.queue:
            raise busy(f"{self._limits.queue} requests wait for this model already")
        loop = asyncio.get_running_loop()
        request = _Request(arrays, loop.time(), loop.create_future())
        self._waiting.append(request)
        self._arrival.set()
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await request.answer
        except TimeoutError:
            raise RequestRefused(504, f"there was no answer within {self._limits.seconds:g} s") from None
        finally:
            request.answer.cancel()  # whoever has gone isn't computed for

    async def _work(self) -> None:
        while self._waiting:
            if batch := await self._gather():
                await self._answer(batch)

    async def _gather(self) -> list[_Request]:
        """The next batch; nothing where all that waited have gone."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            if self._waiting[0].answer.done():
                self._waiting.popleft()
                continue
            batch = self._first_batch()
            left = batch[0].arrived + self._limits.delay - loop.time()
            if left > 0 and sum(one.rows for one in batch) < self._limits.batch:
                self._arrival.clear()
                try:
                    async with asyncio.timeout(left):
                        await self._arrival.wait()
                except TimeoutError:
                    pass
                continue
            chosen = set(map(id, batch))
            self._waiting = deque(one for one in self._waiting if id(one) not in chosen)
            return batch
        return []

    def _first_batch(self) -> list[_Request]:
        """The request that has waited longest and those that fit into its batch; at least that one."""
        found, rows = [self._waiting[0]], self._waiting[0].rows
        for one in list(self._waiting)[1:]:
            if rows >= self._limits.batch:
                break
            if not one.answer.done() and one.kind == found[0].kind and rows + one.rows <= self._limits.batch:
                found.append(one)
                rows += one.rows
        return found

    async def _answer(self, batch: Sequence[_Request]) -> None:
        loop = asyncio.get_running_loop()
        rows = sum(one.rows for one in batch)
        try:
            outputs = await loop.run_in_executor(self._thread, self._compute, [one.arrays for one in batch])
        except Exception as error:  # whatever it was, each waiting client gets an answer
            await self._answer_alone(batch, error)
            return
        self._report(rows)
        begin = 0
        for one in batch:
            if not one.answer.done():
                one.answer.set_result({name: array[begin : begin + one.rows] for name, array in outputs.items()})
            begin += one.rows

    async def _answer_alone(self, batch: Sequence[_Request], error: Exception) -> None:
        """What fails together is tried one by one: nobody's samples fail another's."""
        if len(batch) == 1:
            if not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        for one in batch:
            if not one.answer.done():
                await self._answer([one])

    def _compute(self, requests: Sequence[Arrays]) -> Mapping[str, NDArray[Any]]:
        if len(requests) == 1:
            return self._run(*requests[0])
        return self._run(*(np.concatenate(parts) for parts in zip(*requests, strict=True)))


class Pool:
    """Threads for what isn't batched, such as decoding pictures, with a bounded queue.

    Args:
        workers: how many.
        limits: of queue and time.
    """

    def __init__(self, workers: int, limits: Limits) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="zooft-images")
        self._limits, self._most, self._held = limits, workers + limits.queue, 0

    async def run(self, work: Callable[[], Any]) -> Any:
        """What `work` gives, in a thread.

        Raises:
            RequestRefused: too many wait, or it took too long.
        """
        if self._held >= self._most:
            raise busy(f"{self._limits.queue} requests with pictures wait already")
        self._held += 1
        future = self._threads.submit(work)
        wrapped = asyncio.wrap_future(future)
        wrapped.add_done_callback(self._release)
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await asyncio.shield(wrapped)
        except TimeoutError:
            future.cancel()
            raise RequestRefused(504, f"there was no answer within {self._limits.seconds:g} s") from None
        except asyncio.CancelledError:
            future.cancel()
            raise

    def _release(self, future: asyncio.Future[Any]) -> None:
        self._held -= 1
        if not future.cancelled():
            future.exception()  # of a client that has gone
