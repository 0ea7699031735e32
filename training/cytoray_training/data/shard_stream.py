"""Shards that are copied to a node's disk before its worker samples from them, and removed afterwards.

A training run is divided into rounds, a round into turns. In a round every shard is assigned to a worker, in random
order; a worker uses a few shards per turn. While it samples from the shards of one turn, those of the next are copied.
The assignment depends only on seed, step, the number of workers and the shards.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import PlatformError
from cytoray_analysis.examples import Examples, Places
from cytoray_analysis.images import IntensityStatistics
from cytoray_training.data.cache import CachedPixels, Entry
from cytoray_training.data.shards import OpenShard, ShardIndex, nameless_file

_PIECE = 2**23
_ROUNDING = 1e-6  # share of a shard; smaller parts are ignored


@dataclass(frozen=True)
class ShardSchedule:
    """The assignment of shards to workers at each step.

    The shards of a round form a line; the length of each is its sampling weight. Every worker takes an equal stretch of
    it, and each of its turns a part proportional to the turn, so all examples are sampled equally, however unequal the
    shards are. If a stretch ends inside a shard, both neighbours have that shard and sample from it less.

    Attributes
    ----------
    weights
        Sampling weight of the examples of each shard, together; see :meth:`ShardIndex.weights`.
    bytes
        Size of each shard.
    examples
        Number of examples.
    world
        Number of workers.
    held
        Limit of a worker's data at a time, in units of the largest shards.
    seed
        Seed of the order of shards.
    steps_per_epoch, batch
        Of the training run.
    """

    weights: tuple[float, ...]
    bytes: tuple[int, ...]
    examples: int
    world: int
    held: int
    seed: int
    steps_per_epoch: int
    batch: int

    @cached_property
    def turns(self) -> int:
        """Number of turns in a round: the minimum that the disk allows."""
        weights, sizes = np.array(self.weights), np.array(self.bytes)
        by_density = np.argsort(weights / sizes)
        by_density = by_density[weights[by_density] > 0]
        # The longest turn takes at most this share of the line, and at most the shards that need the most disk space.
        line = np.append(0.0, np.cumsum(weights[by_density])) / weights.sum()
        disk = np.append(0.0, np.cumsum(sizes[by_density]))
        most = self.held * sizes.max() * (1 + _ROUNDING)
        longest = ((turns, -(-self._steps(turns) // turns) / self._steps(turns) / self.world) for turns in count(1))
        return next(turns for turns, share in longest if np.interp(share, line, disk) <= most)

    def _steps(self, turns: int) -> int:
        epochs = max(-(-turns // self.steps_per_epoch), round(self.examples / (self.batch * self.steps_per_epoch)), 1)
        return epochs * self.steps_per_epoch

    @property
    def steps(self) -> int:
        """Number of steps in a round.

        A round is an epoch, or as many epochs as needed to sample as many crops as there are examples; otherwise more
        would be copied than used. Every turn has at least one step.
        """
        return self._steps(self.turns)

    def turn(self, step: int) -> int:
        """Return the turn of a step, counted from the beginning of the training run."""
        done, inside = divmod(step, self.steps)
        return done * self.turns + inside * self.turns // self.steps

    def pieces(self, turn: int, rank: int) -> tuple[tuple[int, float], ...]:
        """Return the shards of a worker in a turn, each with the share that belongs to this turn, 0 to 1."""
        number, inside = divmod(turn, self.turns)
        order = np.random.default_rng((self.seed, number)).permutation(len(self.weights))
        lengths = np.array(self.weights)[order] / sum(self.weights)
        ends = np.cumsum(lengths)
        # A worker's turns are adjacent, so a shard in two of them is copied once.
        begin, end = (
            (rank + -(-one * self.steps // self.turns) / self.steps) / self.world for one in (inside, inside + 1)
        )
        inside_both = np.minimum(ends, end) - np.maximum(ends - lengths, begin)
        chosen = np.flatnonzero(inside_both > _ROUNDING * np.minimum(lengths, end - begin))
        return tuple((int(order[at]), float(inside_both[at] / lengths[at])) for at in chosen)


@dataclass(frozen=True, eq=False)
class HeldShards:
    """The shards of one turn, as one window.

    Attributes
    ----------
    parts
        Share of each shard in this turn; its examples are sampled less often in proportion.
    """

    shards: Sequence[OpenShard]
    parts: Sequence[float]
    class_counts: dict[int, int] | None

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Positions of their examples."""
        return tuple(entry for shard in self.shards for entry in shard.entries)

    @cached_property
    def _owners(self) -> list[tuple[int, int]]:
        return [(number, index) for number, shard in enumerate(self.shards) for index in range(len(shard.entries))]

    def pixels(self, index: int) -> CachedPixels:
        """Return the pixels of an example."""
        number, inside = self._owners[index]
        return self.shards[number].pixels(inside)

    def truth(self, index: int) -> NDArray[Any]:
        """Return the truth of an example."""
        number, inside = self._owners[index]
        return self.shards[number].truth(inside)

    def places(self, index: int, examples: Examples) -> Places:
        """Return the places of an example that can be sampled, as determined when it was decoded."""
        number, inside = self._owners[index]
        places = self.shards[number].places(inside)
        return Places(places.weights * self.parts[number], places.classes)


class ShardStream:
    """The data of one worker, turn by turn.

    Parameters
    ----------
    index
        All shards.
    deal
        The assignment of shards.
    rank
        This worker.
    scratch
        A folder on this node's disk. Its files have no name and disappear with this process.
    in_use
        Protects the folder of all shards from removal while it is open.
    """

    def __init__(
        self, index: ShardIndex, schedule: ShardSchedule, rank: int, scratch: Path, in_use: BinaryIO | None = None
    ) -> None:
        self.index, self.schedule, self.rank, self.scratch, self.in_use = index, schedule, rank, scratch, in_use
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shards")
        self._turns: dict[int, Future[HeldShards]] = {}
        self._open: dict[int, OpenShard] = {}

    @property
    def statistics(self) -> IntensityStatistics:
        """Intensities of the whole training split."""
        return self.index.statistics

    def window(self, step: int) -> HeldShards:
        """Return the window of this worker at a step; wait until it is available.

        Raises
        ------
        PlatformError
            The shards cannot be read, or do not fit on the disk.
        """
        turn = self.schedule.turn(step)
        for past in [one for one in self._turns if one not in (turn, turn + 1)]:
            self._turns.pop(past).cancel()  # open readers keep it on the disk
        for wanted in (turn, turn + 1):
            if wanted not in self._turns:
                self._turns[wanted] = self._pool.submit(self._fetched, wanted)
        return self._turns[turn].result()

    def richest(self, examples: Examples) -> tuple[CachedPixels, NDArray[Any]]:
        """Return pixels and truth of an example that is sampled often, from the folder of all shards."""
        number, inside = self.index.richest
        shard = self.index.open(number, np.memmap(self.index.path(number), np.uint8, "r"))
        return shard.pixels(inside), shard.truth(inside)

    def _fetched(self, turn: int) -> HeldShards:
        """Copy the shards of a turn, except those of the previous turn; runs in one thread, in order."""
        pieces = self.schedule.pieces(turn, self.rank)
        self._open = {number: self._open.get(number) or self._fetch(number) for number, _ in pieces}
        return HeldShards(
            list(self._open.values()), [part for _, part in pieces], dict(self.index.class_counts) or None
        )

    def _fetch(self, number: int) -> OpenShard:
        path = self.index.path(number)
        try:
            with path.open("rb") as source, nameless_file(self.scratch) as copy:
                shutil.copyfileobj(source, copy, _PIECE)
                copy.flush()
                return self.index.open(number, np.memmap(copy, np.uint8, "r"))
        except OSError as error:
            raise PlatformError(
                f"the shard {path} cannot be copied to {self.scratch}: {error}",
                field="data.shards",
                hint="decrease data.shards.held or data.shards.megabytes, or use nodes with a larger scratch disk",
            ) from error
