"""Which crops a step trains on: a pure function of seed and step.

So resuming needs only the position in the training run. The draw does not depend on the number of workers; each takes a
share. A worker that has only some shards of the training split samples from those; which ones depends on the number of
workers.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cytoray_analysis.augmentation import Augmentation
from cytoray_analysis.examples import Examples
from cytoray_training.data.cache import Source, Window
from cytoray_training.plan.plan import Plan

Pass = tuple[Tensor, Tensor]
_Places = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
# Reads exactly a crop.
_STILL = Augmentation(flips=False, rotation=0.0, zoom=(1.0, 1.0), elastic=0.0)
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Draw:
    """The source of one crop: an example, a place in it, and random numbers for the exact position."""

    example: int
    place: int
    chance: tuple[float, ...]


@dataclass(frozen=True)
class Drawn:
    """The crops of a step over all workers, and their source examples."""

    step: int
    draws: list[Draw]
    window: Window


@dataclass
class Preparing:
    """Seconds spent preparing batches: reading pixels and truth, augmentation, and encoding of the loss's target."""

    read: float = 0.0
    augment: float = 0.0
    encode: float = 0.0
    _turn: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def add(self, read: float, augment: float, encode: float) -> None:
        """Count one more batch; thread-safe."""
        with self._turn:
            self.read += read
            self.augment += augment
            self.encode += encode


@dataclass(frozen=True)
class Sampler:
    """Draws augmented crops from the training split.

    Attributes
    ----------
    source
        Where pixels and truths come from.
    examples
        How they are sampled and augmented.
    crop
        Sides of a crop in pixels.
    batch
        Crops per optimizer step, over all workers; see :func:`shares`.
    accumulate
        Number of passes per step on each worker.
    seed
        Seed of every random number, together with the step.
    augmentation
        How crops are augmented.
    encode
        Turns a batch of truths into the target of the loss.
    balance
        0 samples classes by frequency, 1 every class equally often.
    kinds, shares
        The kind of each file, and the relative number of crops of each kind; empty if kinds do not count.
    rank, world
        This worker among all.
    spent
        Measures the time of each stage.
    """

    source: Source
    examples: Examples
    crop: tuple[int, ...]
    batch: int
    accumulate: int
    seed: int
    augmentation: Augmentation
    encode: Callable[[Tensor], Tensor]
    balance: float = 0.0
    kinds: Mapping[str, str] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    rank: int = 0
    world: int = 1
    spent: Preparing = field(default_factory=Preparing, compare=False)
    _known: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    def _places(self, window: Window) -> _Places:
        """Return what can be sampled from a window, cached until the next window."""
        if not self._known or self._known[0] is not window:
            self._known[:] = [window, self._offered(window)]
        found: _Places = self._known[1]
        return found

    def _offered(self, window: Window) -> _Places:
        """Return example, place in it, and probability of everything that can be sampled."""
        offered = [window.places(index, self.examples) for index in range(len(window.entries))]
        sizes = [len(places.weights) for places in offered]
        example = np.repeat(np.arange(len(offered)), sizes)
        place = np.concatenate([np.arange(size) for size in sizes])
        weights = np.concatenate([places.weights for places in offered])
        classes = [places.classes for places in offered if places.classes is not None]
        if classes and self.balance > 0:
            numbers = np.concatenate(classes)
            counts = np.bincount(numbers)
            if window.class_counts:  # of the whole, so that a window is weighted like every other
                counts = np.array([window.class_counts.get(number, 1) for number in range(len(counts))])
            weights = weights / counts[numbers] ** self.balance
        if self.shares:
            kind = np.array([self.kinds[window.entries[int(index)].file] for index in example])
            for name, share in self.shares.items():
                weights[kind == name] *= share / weights[kind == name].sum()
        return example, place, weights / weights.sum()

    def draw(self, step: int) -> list[Draw]:
        """Choose the crops of a step, over all workers; only from this worker's shards if it does not have all."""
        chance = np.random.default_rng((self.seed, step))
        example, place, probability = self._places(self.source.window(step))
        chosen = chance.choice(len(probability), self.batch, p=probability)
        where = chance.random((self.batch, len(self.crop)))
        return [
            Draw(int(example[index]), int(place[index]), tuple(at)) for index, at in zip(chosen, where, strict=True)
        ]

    def drawn(self, step: int) -> Drawn:
        """Choose the crops of a step, and keep their source open."""
        return Drawn(step, self.draw(step), self.source.window(step))

    def cut(self, drawn: Drawn) -> list[Pass]:
        """Return this worker's (images, target) of a step, one per pass, ready for the network.

        Thread-safe.
        """
        sizes = shares(self.batch, self.world, self.accumulate)
        before = 0
        mine = []
        for number in range(self.accumulate):
            start = before + sum(sizes[rank][number] for rank in range(self.rank))
            chosen = drawn.draws[start : start + sizes[self.rank][number]]
            mine.append(self._pass(drawn.window, chosen, (self.seed, drawn.step, start)))
            before += sum(size[number] for size in sizes)
        return mine

    def _pass(self, window: Window, draws: list[Draw], seed: tuple[int, int, int]) -> Pass:
        began = time.perf_counter()
        windows = [
            self.examples.window(
                window.pixels(draw.example),
                window.truth(draw.example),
                draw.place,
                np.array(draw.chance),
                self.crop,
                self.augmentation,
            )
            for draw in draws
        ]
        images = torch.from_numpy(np.stack([window[0] for window in windows]))
        truth = torch.from_numpy(np.stack([window[1] for window in windows]))
        read = time.perf_counter()
        words = np.random.SeedSequence(seed).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(words[0]) % 2**63)
        images, truth = self.examples.vary(images, truth, self.crop, self.augmentation, generator)
        layout = _LAYOUTS.get(images.ndim, torch.contiguous_format)
        images = images.contiguous(memory_format=layout)
        varied = time.perf_counter()
        target = self.encode(truth)
        self.spent.add(read - began, varied - read, time.perf_counter() - varied)
        return images, target


def shares(batch: int, world: int, accumulate: int) -> tuple[tuple[int, ...], ...]:
    """Return the number of a step's crops for each worker and pass, as even as possible.

    Of 16 crops three workers take 6, 5 and 5. No pass is empty if there are at least as many crops as passes.

    Returns
    -------
    tuple
        ``shares(…)[rank][pass]``.
    """
    each, more = divmod(batch, world * accumulate)
    return tuple(tuple(each + (number * world + rank < more) for number in range(accumulate)) for rank in range(world))


def fewest_crops(batch: int, world: int, accumulate: int, *, together: bool) -> int:
    """Return the crops of the smallest pass: on a worker, or on all workers together."""
    sizes = np.array(shares(batch, world, accumulate))
    return int((sizes.sum(axis=0) if together else sizes).min())


def test_input(plan: Plan, source: Source) -> NDArray[np.float32]:
    """Return one input of the network, without augmentation, for the self-test of a bundle."""
    examples = plan.examples
    middle = np.full(len(plan.crop), 0.5)
    pixels, truth = source.richest(examples)
    return examples.window(pixels, truth, 0, middle, plan.crop, _STILL)[0]


class Prefetcher:
    """Prepares the next steps while the network trains, and measures how long the network waited.

    Parameters
    ----------
    sampler
        What prepares a step.
    steps
        The steps, in order.
    threads
        Number of steps prepared in parallel; one more step is kept ready.
    """

    def __init__(self, sampler: Sampler, steps: range, *, threads: int = 1) -> None:
        self.waited = 0.0
        self._sampler, self._steps, self._ahead = sampler, steps, threads + 1
        # One thread samples, in order, because the shards of a worker change with the steps.
        self._drawing = ThreadPoolExecutor(1, thread_name_prefix="draws")
        self._cutting = ThreadPoolExecutor(threads, thread_name_prefix="crops")

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in (self._drawing, self._cutting):
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in (self._drawing, self._cutting):
            pool.shutdown()

    def __iter__(self) -> Iterator[list[Pass]]:
        coming = iter(self._steps)
        ready = deque(self._prepared(step) for step in islice(coming, self._ahead))
        while ready:
            start = time.perf_counter()
            passes = ready.popleft().result()
            self.waited += time.perf_counter() - start
            ready.extend(self._prepared(step) for step in islice(coming, 1))
            yield passes

    def _prepared(self, step: int) -> Future[list[Pass]]:
        drawn = self._drawing.submit(self._sampler.drawn, step)
        return self._cutting.submit(lambda: self._sampler.cut(drawn.result()))
