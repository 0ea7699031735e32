import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from cytoray_serving.replica.batching import BatchQueue


class Recorder:
    """Blocks until it is let go, and records the batches that it gets."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.started = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, items: Sequence[str]) -> list[str]:
        self.batches.append(list(items))
        self.started.set()
        assert self.go_on.wait(10)
        if "bad" in items:
            raise ValueError("a bad batch")
        return [item.upper() for item in items]


def make_queue(work: Recorder, *, budget: int = 10, concurrency: int = 1) -> BatchQueue[str, str]:
    return BatchQueue(work, key=lambda item: item[0], cost=len, budget=budget, concurrency=concurrency)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


async def submit_behind(
    work: Recorder, queue: BatchQueue[str, str], first: str, *later: str
) -> list[str | BaseException]:
    """Submit one item, the others while it is at work, and let go."""
    tasks = [asyncio.create_task(queue.submit(first))]
    await asyncio.to_thread(work.started.wait, 10)
    tasks += [asyncio.create_task(queue.submit(item)) for item in later]
    await asyncio.sleep(0.01)
    work.go_on.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_items_that_wait_for_a_busy_model_go_together() -> None:
    async def scenario() -> None:
        work = Recorder()
        results = await submit_behind(work, make_queue(work), "a1", "a2", "a3", "a4")
        assert results == ["A1", "A2", "A3", "A4"]
        assert work.batches == [["a1"], ["a2", "a3", "a4"]]

    run(scenario())


def test_only_equal_keys_share_a_batch_and_no_one_is_lost() -> None:
    async def scenario() -> None:
        work = Recorder()
        results = await submit_behind(work, make_queue(work), "a1", "a2", "b1", "a3", "b2")
        assert results == ["A1", "A2", "B1", "A3", "B2"]
        assert work.batches == [["a1"], ["a2", "a3"], ["b1", "b2"]]

    run(scenario())


def test_a_batch_keeps_to_its_budget_and_a_larger_item_goes_alone() -> None:
    async def scenario() -> None:
        work = Recorder()
        large = "a" * 25
        await submit_behind(work, make_queue(work, budget=8), "a1", "aaaa", "aaaa", "aaa", large)
        assert work.batches == [["a1"], ["aaaa", "aaaa"], ["aaa"], [large]]

    run(scenario())


def test_an_error_reaches_every_item_of_its_batch_and_no_other() -> None:
    async def scenario() -> None:
        work = Recorder()
        results = await submit_behind(work, make_queue(work), "b0", "bad", "b1", "c1")
        assert (results[0], results[3]) == ("B0", "C1")
        assert all(isinstance(error, ValueError) for error in results[1:3])

    run(scenario())


def test_an_item_that_no_one_waits_for_is_left_out() -> None:
    async def scenario() -> None:
        work = Recorder()
        queue = make_queue(work)
        first = asyncio.create_task(queue.submit("a1"))
        await asyncio.to_thread(work.started.wait, 10)
        given_up = asyncio.create_task(queue.submit("a2"))
        kept = asyncio.create_task(queue.submit("a3"))
        await asyncio.sleep(0.01)
        given_up.cancel()
        work.go_on.set()
        assert [await first, await kept] == ["A1", "A3"]
        assert work.batches == [["a1"], ["a3"]]
        with pytest.raises(asyncio.CancelledError):
            await given_up

    run(scenario())


def test_two_batches_are_at_work_at_once() -> None:
    async def scenario() -> None:
        work = Recorder()
        queue = make_queue(work, concurrency=2)
        tasks = [asyncio.create_task(queue.submit(item)) for item in ("a1", "b1")]
        while len(work.batches) < 2:
            await asyncio.sleep(0.001)
        work.go_on.set()
        assert await asyncio.gather(*tasks) == ["A1", "B1"]

    run(scenario())
