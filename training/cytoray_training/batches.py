"""Which crops a step trains on: a pure function of seed and step.

So resuming needs only the place in the training. The draw does not depend on the number of workers; each takes a share.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cytoray_analysis.augmentation import Augmentation, augment
from cytoray_training.cache import Split

Pass = tuple[Tensor, Tensor]
OVERHANG = 0.125


@dataclass(frozen=True)
class Crop:
    """A place to train on: image, and the centre of the crop in its pixels."""

    image: int
    centre: tuple[int, ...]


@dataclass(frozen=True)
class Sampler:
    """Draws augmented crops from the training split.

    Attributes
    ----------
    split
        Where pixels and labels come from.
    crop
        Side of a crop in pixels.
    batch
        Crops per optimizer step, over all workers.
    accumulate
        Passes that they are divided into, on each worker.
    seed
        Of every random number, together with the step.
    augmentation
        How crops are varied.
    encode
        Turns labels (B, Y, X) into the target of the loss.
    rank, world
        This worker among all.
    """

    split: Split
    crop: int
    batch: int
    accumulate: int
    seed: int
    augmentation: Augmentation
    encode: Callable[[Tensor], Tensor]
    rank: int = 0
    world: int = 1

    def draw(self, step: int) -> list[Crop]:
        """Choose the crops of a step, over all workers.

        An image is chosen with a probability that grows with the square root of its objects: many small images do not
        drown a few large ones, nor the other way round, and empty images are still seen. Up to an eighth of a crop may
        hang over the border of its image.
        """
        chance = np.random.default_rng((self.seed, step))
        weights = np.sqrt([1.0 + entry.objects for entry in self.split.entries])
        images = chance.choice(len(weights), self.batch, p=weights / weights.sum())
        places = chance.random((self.batch, len(self.split.entries[0].shape) - 1))
        return [Crop(int(image), self._centre(int(image), place)) for image, place in zip(images, places, strict=True)]

    def passes(self, step: int) -> list[Pass]:
        """Return this worker's (images, target) of a step, one per pass, ready for the network."""
        crops = self.draw(step)
        size = self.batch // (self.world * self.accumulate)
        starts = [(index * self.world + self.rank) * size for index in range(self.accumulate)]
        return [self._pass(crops[start : start + size], (self.seed, step, start)) for start in starts]

    def _centre(self, image: int, place: NDArray[np.float64]) -> tuple[int, ...]:
        shape = self.split.entries[image].shape[1:]
        margins = [min(self.crop * (0.5 - OVERHANG), length / 2) for length in shape]
        return tuple(
            int(margin + p * (length - 2 * margin)) for p, margin, length in zip(place, margins, shape, strict=True)
        )

    def _pass(self, crops: list[Crop], seed: tuple[int, int, int]) -> Pass:
        windows = [self._window(crop) for crop in crops]
        images = torch.from_numpy(np.stack([window[0] for window in windows]))
        labels = torch.from_numpy(np.stack([window[1] for window in windows]))
        words = np.random.SeedSequence(seed).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(words[0]) % 2**63)
        images, labels = augment(images, labels, self.crop, self.augmentation, generator)
        return images.contiguous(memory_format=torch.channels_last), self.encode(labels)

    def _window(self, crop: Crop) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Read the surroundings of a crop; beyond the image pixels are 0 and labels −1."""
        side = self.augmentation.window(self.crop)
        shape = self.split.entries[crop.image].shape
        starts = [centre - side // 2 for centre in crop.centre]
        inside = tuple(
            slice(max(start, 0), min(start + side, length)) for start, length in zip(starts, shape[1:], strict=True)
        )
        target = tuple(slice(i.start - start, i.stop - start) for i, start in zip(inside, starts, strict=True))
        images = np.zeros((shape[0], *[side] * len(starts)), np.float32)
        labels = np.full([side] * len(starts), -1, np.int64)
        images[(slice(None), *target)] = self.split.scaled(crop.image, inside)
        labels[target] = self.split.labels_of(crop.image)[inside]
        return images, labels


class Prefetcher:
    """Prepares the next steps in one thread while the network trains, and measures how long the network waited.

    Parameters
    ----------
    sampler
        What prepares a step.
    steps
        The steps, in order.
    ahead
        How many are kept ready.
    """

    def __init__(self, sampler: Sampler, steps: range, *, ahead: int = 2) -> None:
        self.waited = 0.0
        self._ready: queue.Queue[list[Pass] | BaseException | None] = queue.Queue(ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(sampler, steps), daemon=True, name="crops")

    def __enter__(self) -> Prefetcher:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def __iter__(self) -> Iterator[list[Pass]]:
        while True:
            start = time.perf_counter()
            ready = self._ready.get()
            self.waited += time.perf_counter() - start
            if ready is None:
                return
            if isinstance(ready, BaseException):
                raise ready
            yield ready

    def _work(self, sampler: Sampler, steps: range) -> None:
        try:
            for step in steps:
                if not self._put(sampler.passes(step)):
                    return
            self._put(None)
        except Exception as error:  # noqa: BLE001 - raised again where the batches are consumed
            self._put(error)

    def _put(self, item: list[Pass] | BaseException | None) -> bool:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
