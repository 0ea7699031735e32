"""The threads and the batch queue of each lane of a model.

Questions in different lanes of a model are as separate as those to two models: they only share the processor.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

from cytoray_serving.replica.batching import BatchQueue

Item = TypeVar("Item")
Result = TypeVar("Result")


class Lane(Generic[Item, Result]):
    """One lane; its threads start with the first work.

    Parameters
    ----------
    work, key, cost, budget
        As for :class:`~cytoray_serving.replica.batching.BatchQueue`.
    cores
        Number of cores for the network.
    on_cpu
        Whether the network runs on the CPU.
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
        # An accelerator must not wait for reading and decoding on the CPU: as many batches as there are cores.
        # On a CPU with enough cores, two batches hide each other's reading and decoding.
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
        """Finish batches in progress and end the threads."""
        self.queue.close()
        self.threads.shutdown(wait=True, cancel_futures=True)


class _Cores:
    """Divides the cores of a lane among the concurrent batches, which would otherwise wait for each other's threads.

    Parameters
    ----------
    threads
        Number of cores for the network.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._busy = 0
        self._lock = threading.Lock()

    @contextmanager
    def share(self) -> Iterator[None]:
        """Set a share of the cores for the calling thread; OpenMP has a number of threads for each thread."""
        with self._lock:
            self._busy += 1
            share = max(1, self._threads // self._busy)
        torch.set_num_threads(share)
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
