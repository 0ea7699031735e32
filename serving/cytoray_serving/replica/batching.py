"""Batches requests while the model is busy.

Queued items are taken together, so an idle model answers immediately (no item waits for a batch to fill) and a busy
model gets the largest batches that its budget allows. `ray.serve.batch` closes a batch first and then waits for its
turn: under load it passes on many batches of one item, unless every item waits for a timeout.

Batches that are computed at the same time should have the same size. A stream that has finished finds few items,
because the answers of its last batch are still on their way. It takes at most its share of the items, and waits for
them for up to a twentieth of the time of a batch.
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
    """Passes items to a blocking function in batches, from any number of coroutines of one event loop.

    Parameters
    ----------
    work
        Takes a batch and returns one result per item; runs in a thread. Its errors are raised for every item.
    key
        Only items with equal keys share a batch.
    cost
        Cost of one item, such as its pixels.
    budget
        Maximum cost of a batch; an item that costs more is a batch of its own.
    concurrency
        Number of batches in progress. With two, one batch is decoded while the network computes the next.
    beside
        Number of these batches that are computed at the same time and share the items; 1 for batches as large as
        possible.
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
        """Finish batches in progress and end the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _drain(self) -> None:
        """Process the queue until it is empty."""
        loop = asyncio.get_running_loop()
        try:
            while batch := await self._gather():
                self._working += len(batch)
                begun = time.perf_counter()
                try:
                    results = await loop.run_in_executor(self._threads, self._work, [one.item for one in batch])
                except Exception as error:  # noqa: BLE001 - raised again for each item
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
        """Wait briefly for this stream's share of the items, and take it."""
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
        """Take the oldest item and, in order, all that fit into its batch."""
        most = -(-(len(self._waiting) + self._working) // self._beside)
        batch: list[_Waiting[Item, Result]] = []
        left: deque[_Waiting[Item, Result]] = deque()
        spent = 0
        for one in self._waiting:
            if one.future.done():  # cancelled
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
