"""Threads and a queue of batches, of which a model has one for each lane that questions come in.

Questions in different lanes of a model meet as those to two models do: they share the processor and no more.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

from cytoray_serving.batching import BatchQueue

Item = TypeVar("Item")
Result = TypeVar("Result")


class Lane(Generic[Item, Result]):
    """One lane; its threads begin when there is work for them.

    Parameters
    ----------
    work, key, cost, budget
        As for :class:`~cytoray_serving.batching.BatchQueue`.
    cores
        That the network may use.
    on_cpu
        Whether the network runs on them.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        key: Callable[[Item], Hashable],
        cost: Callable[[Item], int],
        budget: int,
        cores: int,
        on_cpu: bool,
    ) -> None:
        # An accelerator must not wait for the CPU's part, reading and decoding: as many at work as there are cores.
        # On a CPU two hide each other's reading and decoding, where there are cores for two.
        at_work = min(2, cores) if on_cpu else max(2, min(16, os.cpu_count() or 2))
        self.threads = ThreadPoolExecutor(at_work, thread_name_prefix="encode")
        shared = _Cores(cores)

        def compute(batch: Sequence[Item]) -> Sequence[Result]:
            with shared.share():
                return work(batch)

        self.queue = BatchQueue(
            compute, key=key, cost=cost, budget=budget, concurrency=at_work, beside=at_work if on_cpu else 1
        )

    def close(self) -> None:
        """Let what is at work finish, and end the threads."""
        self.queue.close()
        self.threads.shutdown(wait=True, cancel_futures=True)


class _Cores:
    """Shares the cores of a lane among the batches at work: together they would wait for each other's threads.

    Parameters
    ----------
    threads
        Cores that the network may use.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._busy = 0
        self._lock = threading.Lock()

    @contextmanager
    def share(self) -> Iterator[None]:
        """Take a share of the cores for the calling thread; with OpenMP the number of threads is each thread's own."""
        with self._lock:
            self._busy += 1
            share = max(1, self._threads // self._busy)
        torch.set_num_threads(share)
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
