"""Batches that form while the model is busy.

Items that wait are taken together, so an idle model answers at once (nobody waits for a batch to fill) and a busy
one gets the largest batches that its budget allows. `ray.serve.batch` closes a batch first and then waits for its
turn: under load it hands on many batches of one, unless everybody waits for a time-out.

Where two batches are computed beside each other, they shall be of one size: a stream that is done finds few items,
because the answers of its last batch are just on their way, and would begin with one of them. It takes no more than its
share, and waits for it a twentieth of the time that a batch takes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

_PATIENCE = 0.05  # of the time that the last batch took

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    future: asyncio.Future[Result]


class BatchQueue(Generic[Item, Result]):
    """Hands items to a blocking function in batches, from any number of coroutines of one event loop.

    Parameters
    ----------
    work
        Takes a batch and returns one result per item; runs in a thread. What it raises, every item of the batch raises.
    key
        Only items of equal keys share a batch.
    cost
        Cost of one item, such as its pixels.
    budget
        Largest cost of a batch; an item that costs more goes alone.
    concurrency
        Batches at work at the same time. Two let one batch be decoded while the network computes the next.
    beside
        Of these, batches that are computed beside each other and therefore share the items; 1 where each batch shall
        be as large as possible.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        key: Callable[[Item], Hashable],
        cost: Callable[[Item], int],
        budget: int,
        concurrency: int = 2,
        beside: int = 1,
    ) -> None:
        self._work = work
        self._key = key
        self._cost = cost
        self._budget = budget
        self._idle = concurrency
        self._beside = beside
        self._working = 0  # items
        self._seconds = 0.0  # that the last batch took
        self._changed = asyncio.Event()
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="batch")
        self._running: set[asyncio.Task[None]] = set()

    async def submit(self, item: Item) -> Result:
        """Wait for the result of one item; cancelling the wait takes the item out of the queue."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(item, future))
        self._changed.set()
        if self._idle:
            self._idle -= 1
            task = asyncio.create_task(self._drain())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return await future

    def close(self) -> None:
        """Let what is at work finish, and end the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _drain(self) -> None:
        """Work off the queue until it is empty."""
        loop = asyncio.get_running_loop()
        try:
            while batch := await self._gather():
                self._working += len(batch)
                begun = time.perf_counter()
                try:
                    results = await loop.run_in_executor(self._threads, self._work, [one.item for one in batch])
                except Exception as error:  # noqa: BLE001 - it is raised again where each item waits
                    for one in batch:
                        if not one.future.done():
                            one.future.set_exception(error)
                else:
                    for one, result in zip(batch, results, strict=True):
                        if not one.future.done():
                            one.future.set_result(result)
                finally:
                    self._working -= len(batch)
                    self._seconds = time.perf_counter() - begun
                    self._changed.set()
        finally:
            self._idle += 1

    async def _gather(self) -> list[_Waiting[Item, Result]]:
        """Wait a moment for this stream's share of the items, and take it."""
        end = time.perf_counter() + _PATIENCE * self._seconds
        while self._waiting and len(self._waiting) * (self._beside - 1) < self._working:
            left = end - time.perf_counter()
            if left <= 0:
                break
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)
        return self._take()

    def _take(self) -> list[_Waiting[Item, Result]]:
        """Take the oldest item and, in order, all that fit beside it."""
        most = -(-(len(self._waiting) + self._working) // self._beside)
        batch: list[_Waiting[Item, Result]] = []
        left: deque[_Waiting[Item, Result]] = deque()
        spent = 0
        for one in self._waiting:
            if one.future.done():  # cancelled: nobody waits for it
                continue
            cost = self._cost(one.item)
            same = not batch or self._key(one.item) == self._key(batch[0].item)
            if same and (not batch or (spent + cost <= self._budget and len(batch) < most)):
                batch.append(one)
                spent += cost
            else:
                left.append(one)
        self._waiting = left
        return batch
