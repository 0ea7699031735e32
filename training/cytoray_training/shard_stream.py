"""Shards that come to a node's own disk before its worker draws from them, and go when it no longer does.

A training is divided into rounds, a round into turns. In a round every shard is dealt to one worker, in an order drawn
by chance; a worker takes its shards a few at a time, one turn each. While it draws from those of one turn, those of the
next are on the way. Who has which shards when depends on seed, step and the numbers of workers and shards only.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import PlatformError
from cytoray_analysis.examples import Examples, Places
from cytoray_analysis.images import IntensityStatistics
from cytoray_training.cache import CachedPixels, Entry
from cytoray_training.shards import OpenShard, ShardIndex, nameless_file

_PIECE = 2**23


@dataclass(frozen=True)
class Deal:
    """Which shards a worker has at a step.

    Attributes
    ----------
    shards, examples
        How many there are.
    world
        How many workers.
    held
        Shards that a worker has at a time, at most.
    seed
        Of the order of shards.
    steps_per_epoch, batch
        Of the training.
    """

    shards: int
    examples: int
    world: int
    held: int
    seed: int
    steps_per_epoch: int
    batch: int

    @property
    def turns(self) -> int:
        """Turns of a round."""
        return -(-self.shards // (self.world * self.held))

    @property
    def steps(self) -> int:
        """Steps of a round.

        A round is an epoch, or as many as it takes to draw as many crops as there are examples: else more would be
        copied than is looked at. Every turn has a step at least.
        """
        epochs = max(
            -(-self.turns // self.steps_per_epoch), round(self.examples / (self.batch * self.steps_per_epoch)), 1
        )
        return epochs * self.steps_per_epoch

    def turn(self, step: int) -> int:
        """Return the turn of a step, counted from the begin of the training."""
        done, inside = divmod(step, self.steps)
        return done * self.turns + inside * self.turns // self.steps

    def of(self, turn: int, rank: int) -> tuple[int, ...]:
        """Return the shards of a worker in a turn; where there are fewer shards than workers, some share one."""
        number, inside = divmod(turn, self.turns)
        order = np.random.default_rng((self.seed, number)).permutation(self.shards)
        group, groups = inside * self.world + rank, self.turns * self.world
        begin, end = group * self.shards // groups, (group + 1) * self.shards // groups
        return tuple(order[begin : max(end, begin + 1)].tolist())


@dataclass(frozen=True, eq=False)
class HeldShards:
    """The shards of one turn, as one window."""

    shards: Sequence[OpenShard]
    class_counts: dict[int, int] | None

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Where their examples lie."""
        return tuple(entry for shard in self.shards for entry in shard.entries)

    @cached_property
    def _owners(self) -> list[tuple[OpenShard, int]]:
        return [(shard, index) for shard in self.shards for index in range(len(shard.entries))]

    def pixels(self, index: int) -> CachedPixels:
        """Return the pixels of an example."""
        shard, inside = self._owners[index]
        return shard.pixels(inside)

    def truth(self, index: int) -> NDArray[Any]:
        """Return the truth of an example."""
        shard, inside = self._owners[index]
        return shard.truth(inside)

    def places(self, index: int, examples: Examples) -> Places:
        """Say what may be drawn from an example, as was found when it was decoded."""
        shard, inside = self._owners[index]
        return shard.places(inside)


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
    """

    def __init__(self, index: ShardIndex, deal: Deal, rank: int, scratch: Path) -> None:
        self.index, self.deal, self.rank, self.scratch = index, deal, rank, scratch
        self.copied = 0
        """Bytes copied to this node so far."""
        self.most_held = 0
        """Bytes on this node's disk at a time, at most."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shards")
        self._turns: dict[int, Future[HeldShards]] = {}

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
        held = sum(self.index.shards[number].bytes for one in self._turns for number in self.deal.of(one, self.rank))
        self.most_held = max(self.most_held, held)
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

    def _fetched(self, turn: int) -> HeldShards:
        shards = [self._fetch(number) for number in self.deal.of(turn, self.rank)]
        return HeldShards(shards, dict(self.index.class_counts) or None)

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
