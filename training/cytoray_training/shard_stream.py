"""Shards that come to a node's own disk before its worker draws from them, and go when it no longer does.

A training is divided into rounds, a round into turns. In a round every shard is dealt to a worker, in an order drawn
by chance; a worker takes its shards a few at a time, one turn each. While it draws from those of one turn, those of the
next are on the way. Who has which shards when depends on seed, step, the number of workers and the shards only.
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
from cytoray_training.cache import CachedPixels, Entry
from cytoray_training.shards import OpenShard, ShardIndex, nameless_file

_PIECE = 2**23
_ROUNDING = 1e-6  # of a shard: less is no part of it


@dataclass(frozen=True)
class Deal:
    """Which shards a worker has at a step.

    All shards of a round lie on a line, each as long as its examples are drawn often. Every worker takes an equal
    stretch of it, and each of its turns a part that is as long as the turn: so all examples are drawn alike, however
    unequal shards are. Where a stretch ends inside a shard, both neighbours have it, and draw from it less.

    Attributes
    ----------
    weights
        Of each shard: how often its examples are drawn, together; see :meth:`ShardIndex.weights`.
    bytes
        Of each shard.
    examples
        How many there are.
    world
        How many workers.
    held
        A worker draws from parts of no more bytes than so many of the largest shards have.
    seed
        Of the order of shards.
    steps_per_epoch, batch
        Of the training.
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
        """Turns of a round: as few as the disk allows."""
        weights, sizes = np.array(self.weights), np.array(self.bytes)
        by_density = np.argsort(weights / sizes)
        by_density = by_density[weights[by_density] > 0]
        # The longest turn takes at most this share of the line, and at most those shards that are long on the disk.
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
        """Steps of a round.

        A round is an epoch, or as many as it takes to draw as many crops as there are examples: else more would be
        copied than is looked at. Every turn has a step at least.
        """
        return self._steps(self.turns)

    def turn(self, step: int) -> int:
        """Return the turn of a step, counted from the begin of the training."""
        done, inside = divmod(step, self.steps)
        return done * self.turns + inside * self.turns // self.steps

    def pieces(self, turn: int, rank: int) -> tuple[tuple[int, float], ...]:
        """Return the shards of a worker in a turn, each with the share of it that is this turn's, 0 to 1."""
        number, inside = divmod(turn, self.turns)
        order = np.random.default_rng((self.seed, number)).permutation(len(self.weights))
        lengths = np.array(self.weights)[order] / sum(self.weights)
        ends = np.cumsum(lengths)
        # A worker's turns lie side by side, so that a shard which two of them share is copied once.
        begin, end = (
            (rank + -(-one * self.steps // self.turns) / self.steps) / self.world for one in (inside, inside + 1)
        )
        inside_both = np.minimum(ends, end) - np.maximum(ends - lengths, begin)
        chosen = np.flatnonzero(inside_both > _ROUNDING * np.minimum(lengths, end - begin))
        return tuple((int(order[at]), float(inside_both[at] / lengths[at])) for at in chosen)

    def of(self, turn: int, rank: int) -> tuple[int, ...]:
        """Return the shards of a worker in a turn."""
        return tuple(number for number, _ in self.pieces(turn, rank))


@dataclass(frozen=True, eq=False)
class HeldShards:
    """The shards of one turn, as one window.

    Attributes
    ----------
    parts
        The share of each shard that is this turn's: its examples are drawn so much less often.
    """

    shards: Sequence[OpenShard]
    parts: Sequence[float]
    class_counts: dict[int, int] | None

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Where their examples lie."""
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
        """Say what may be drawn from an example, as was found when it was decoded."""
        number, inside = self._owners[index]
        places = self.shards[number].places(inside)
        return Places(places.weights * self.parts[number], places.classes)


class ShardStream:
    """What one worker draws from, turn by turn.

    Parameters
    ----------
    index
        All shards.
    deal
        Who has which.
    rank
        This worker.
    scratch
        A folder on this node's own disk. What lies there has no name and is gone with this process.
    in_use
        Keeps the folder of all shards from being removed while it is open.
    """

    def __init__(self, index: ShardIndex, deal: Deal, rank: int, scratch: Path, in_use: BinaryIO | None = None) -> None:
        self.index, self.deal, self.rank, self.scratch, self.in_use = index, deal, rank, scratch, in_use
        self.copied = 0
        """Bytes copied to this node so far."""
        self.most_held = 0
        """Bytes on this node's disk at a time, at most."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shards")
        self._turns: dict[int, Future[HeldShards]] = {}
        self._open: dict[int, OpenShard] = {}

    @property
    def statistics(self) -> IntensityStatistics:
        """Intensities of the whole training split."""
        return self.index.statistics

    def window(self, step: int) -> HeldShards:
        """Return what this worker draws from at a step, waiting until it is here.

        Raises
        ------
        PlatformError
            The shards cannot be read, or do not fit on the disk.
        """
        turn = self.deal.turn(step)
        for past in [one for one in self._turns if one not in (turn, turn + 1)]:
            self._turns.pop(past).cancel()  # who still reads from it keeps it on the disk
        for wanted in (turn, turn + 1):
            if wanted not in self._turns:
                self._turns[wanted] = self._pool.submit(self._fetched, wanted)
        held = {number for one in self._turns for number in self.deal.of(one, self.rank)}
        self.most_held = max(self.most_held, sum(self.index.shards[number].bytes for number in held))
        return self._turns[turn].result()

    def richest(self, examples: Examples) -> tuple[CachedPixels, NDArray[Any]]:
        """Return pixels and truth of an example that is drawn often, from where all shards lie."""
        number, inside = self.index.richest
        shard = self.index.open(number, np.memmap(self.index.path(number), np.uint8, "r"))
        return shard.pixels(inside), shard.truth(inside)

    def close(self) -> None:
        """Let go of all shards."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._turns.clear()
        self._open.clear()

    def _fetched(self, turn: int) -> HeldShards:
        """Bring the shards of a turn here, but for those that the turn before had too; one thread does so, in order."""
        pieces = self.deal.pieces(turn, self.rank)
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
                self.copied += copy.tell()
                return self.index.open(number, np.memmap(copy, np.uint8, "r"))
        except OSError as error:
            raise PlatformError(
                f"the shard {path} cannot be brought to {self.scratch}: {error}",
                field="data.shards",
                hint="lower data.shards.held or data.shards.megabytes, or give nodes a larger scratch disk",
            ) from error
