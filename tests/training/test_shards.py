"""Shards: every example in exactly one, the same draws from wherever a training goes on, and little on each disk."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from cytoray_analysis.augmentation import Augmentation
from cytoray_analysis.bundle import ModelInput, TaskChoice
from cytoray_analysis.errors import DatasetError, PlatformError
from cytoray_analysis.examples import EXAMPLES
from cytoray_analysis.images import IntensityScaling
from cytoray_services.datasets import Dataset, task_arguments
from cytoray_services.datasets.synthetic.classification import make_classification
from cytoray_services.datasets.synthetic.tracking import make_tracking
from cytoray_training.data.batches import Pass, Sampler, shares
from cytoray_training.data.cache import Cache, Window, open_cache
from cytoray_training.data.shard_stream import ShardSchedule, ShardStream
from cytoray_training.data.shards import OpenShard, ShardIndex, ShardSource, make_shards
from cytoray_training.data.source import open_source
from cytoray_training.plan.plan import Plan
from cytoray_training.run.loop import train
from cytoray_training.run.reporter import FolderReporter

MakePlan = Callable[..., Plan]
SEGMENTATION = TaskChoice(name="segmentation")
# Nine training images of 96 × 96 with 8 bits and labels of 32: five to two shards.
SHARD_BYTES = 120_000


def split_of(folder: Path, dataset: Dataset, **changes: Any) -> ShardSource:
    return replace(ShardSource(folder / "shards", folder / "scratch", dataset, ModelInput(), SEGMENTATION), **changes)


@pytest.fixture
def index(tmp_path: Path, cells: Dataset) -> ShardIndex:
    return make_shards(split_of(tmp_path, cells), SHARD_BYTES)


def opened(index: ShardIndex) -> Iterator[tuple[str, Any, Any, Any, Any]]:
    """Yield file, pixels, truth, scaled pixels and weights of every example."""
    for number in range(len(index.shards)):
        shard = index.open(number, np.memmap(index.path(number), np.uint8, "r"))
        for at, entry in enumerate(shard.entries):
            whole = tuple(slice(0, length) for length in entry.shape[1:])
            pixels = shard.pixels(at)
            yield entry.file, pixels.pixels, shard.truth(at), pixels.read(whole), shard.places(at)


def deal_of(index: ShardIndex, balance: float = 0.0, **changes: int) -> ShardSchedule:
    settings: dict[str, Any] = {"examples": index.examples, "world": 1, "held": 1, "seed": 0}
    settings |= {"weights": index.weights(balance), "bytes": tuple(shard.bytes for shard in index.shards)}
    return ShardSchedule(**settings | {"steps_per_epoch": 6, "batch": 8} | changes)


def sampler(source: Any, **changes: Any) -> Sampler:
    settings: dict[str, Any] = {
        "source": source,
        "examples": EXAMPLES["pixel"],
        "crop": (64, 64),
        "batch": 8,
        "accumulate": 1,
        "seed": 0,
        "augmentation": Augmentation(),
        "encode": lambda labels: labels.float().unsqueeze(1),
    }
    return Sampler(**settings | changes)


def passes(sampler: Sampler, step: int) -> list[Pass]:
    return sampler.cut(sampler.drawn(step))


def same(one: list[Pass], other: list[Pass]) -> bool:
    return all(
        torch.equal(a, b) for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("scaling", [{}, {"scope": "dataset"}, {"method": "zscore"}])
def test_every_example_is_in_one_shard_and_is_what_a_whole_cache_has(
    scaling: dict[str, str], tmp_path: Path, cells: Dataset
) -> None:
    model_input = ModelInput(scaling=IntensityScaling.model_validate(scaling))
    cache = open_cache(tmp_path, cells, "hash", model_input, SEGMENTATION)
    index = make_shards(split_of(tmp_path, cells, model_input=model_input), SHARD_BYTES)
    assert len(index.shards) > 3
    assert all(shard.bytes <= SHARD_BYTES for shard in index.shards)
    assert index.statistics == cache.statistics
    found = {file: rest for file, *rest in opened(index)}
    assert Counter(file for file, *_ in opened(index)) == Counter(entry.file for entry in cache.entries)
    for at, entry in enumerate(cache.entries):
        pixels, truth, scaled, places = found[entry.file]
        np.testing.assert_array_equal(pixels, cache.pixels(at).pixels)
        np.testing.assert_array_equal(truth, cache.truth(at))
        np.testing.assert_array_equal(scaled, cache.pixels(at).read((slice(0, 96), slice(0, 96))))
        np.testing.assert_array_equal(places.weights, EXAMPLES["pixel"].places(cache.truth(at)).weights)


def test_an_image_larger_than_a_shard_has_its_own(tmp_path: Path, cells: Dataset) -> None:
    index = make_shards(split_of(tmp_path, cells), 1000)
    assert [shard.examples for shard in index.shards] == [1] * 9


@pytest.mark.slow
def test_cells_keep_their_classes_and_movies_their_links(tmp_path: Path) -> None:
    cells = make_classification(tmp_path / "cells", images=4, size=128)
    arguments = task_arguments(cells)
    task = TaskChoice(name="classification", arguments=arguments)
    index = make_shards(split_of(tmp_path / "a", cells, task=task, model_input=ModelInput(window=(32, 32))), 30_000)
    assert [index.class_counts[number] for number in range(len(arguments["classes"]))] == list(arguments["counts"])
    movies = make_tracking(tmp_path / "movies", movies=3, frames=4, size=64)
    index = make_shards(split_of(tmp_path / "b", movies, task=TaskChoice(name="tracking")), 50_000)
    assert index.statistics.low == (0.0,) * len(index.statistics.low)
    assert index.examples > len(movies.split("train").images)


@pytest.mark.slow
def test_workers_decode_together_and_nothing_twice(
    tmp_path: Path, cells: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[str] = Counter()
    examples = ShardSource.examples

    def counted(source: ShardSource, items: Any) -> Any:
        read[items[0].image.name] += 1
        return examples(source, items)

    source = split_of(tmp_path, cells)
    make_shards(replace(source, folder=tmp_path / "sample"), 10**9)
    monkeypatch.setattr(ShardSource, "examples", counted)
    barrier = threading.Barrier(3)

    def work(worker: int) -> ShardIndex:
        barrier.wait()
        return make_shards(source, SHARD_BYTES, worker=worker, workers=3)

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(work, range(3)))
    assert found[0] == found[1] == found[2]
    looked_at_for_size = 4
    assert sum(read.values()) == len(cells.split("train").images) + looked_at_for_size


def test_who_died_halfway_is_gone_on_from(tmp_path: Path, cells: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    source = split_of(tmp_path, cells)
    whole = make_shards(replace(source, folder=tmp_path / "whole"), SHARD_BYTES)
    examples, left = ShardSource.examples, [9]

    def dying(source: ShardSource, items: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return examples(source, items)

    monkeypatch.setattr(ShardSource, "examples", dying)
    with pytest.raises(KeyboardInterrupt):
        make_shards(source, SHARD_BYTES)
    finished = {path.name: path.stat().st_mtime_ns for path in source.folder.glob("*.bin")}
    assert 0 < len(finished) < len(whole.shards)
    left[0] = 100
    index = make_shards(source, SHARD_BYTES)
    assert {name: (source.folder / name).stat().st_mtime_ns for name in finished} == finished
    assert replace(index, folder=whole.folder) == whole


def test_a_data_set_without_training_images_is_refused(tmp_path: Path, cells: Dataset) -> None:
    with pytest.raises(DatasetError, match="train"):
        make_shards(split_of(tmp_path, cells.split("val")), SHARD_BYTES)


def deal_by(shards: list[tuple[int, float]], **others: int) -> ShardSchedule:
    """Deal shards of so many bytes, whose examples are drawn so many times as often as those of others."""
    return ShardSchedule(tuple(size * often for size, often in shards), tuple(size for size, _ in shards), **others)


DEALS = some.builds(
    deal_by,
    some.lists(some.tuples(some.integers(1, 1000), some.floats(0.1, 10.0)), min_size=1, max_size=60),
    examples=some.integers(1, 5000),
    world=some.integers(1, 9),
    held=some.integers(1, 9),
    seed=some.integers(0, 2**31 - 1),
    steps_per_epoch=some.integers(1, 40),
    batch=some.integers(1, 64),
)


@pytest.mark.slow
@given(DEALS, some.integers(0, 3))
def test_in_a_round_every_shard_is_drawn_as_often_as_it_should_and_no_one_holds_too_many(
    schedule: ShardSchedule, number: int
) -> None:
    turns = range(number * schedule.turns, (number + 1) * schedule.turns)
    steps = range(number * schedule.steps, (number + 1) * schedule.steps)
    lasts = Counter(schedule.turn(step) for step in steps)
    assert set(lasts) == set(turns)
    assert schedule.steps % schedule.steps_per_epoch == 0
    weights, drawn = np.array(schedule.weights), np.zeros(len(schedule.weights))
    for turn in turns:
        for rank in range(schedule.world):
            pieces = schedule.pieces(turn, rank)
            inside = np.array([weights[shard] * part for shard, part in pieces])
            drawn[[shard for shard, _ in pieces]] += inside / inside.sum() * lasts[turn]
            assert sum(schedule.bytes[shard] for shard, _ in pieces) <= (schedule.held + 2) * max(schedule.bytes)
    np.testing.assert_allclose(drawn / drawn.sum(), weights / weights.sum(), rtol=1e-3)


def test_where_shards_are_alike_and_divide_evenly_none_is_cut() -> None:
    schedule = ShardSchedule((10.0,) * 12, (100,) * 12, 1000, world=2, held=3, seed=0, steps_per_epoch=10, batch=4)
    assert schedule.turns == 2
    dealt = [piece for turn in range(2) for rank in range(2) for piece in schedule.pieces(turn, rank)]
    assert Counter(shard for shard, _ in dealt) == Counter(range(12))


@given(some.integers(1, 500), some.integers(1, 9), some.integers(1, 5))
def test_a_batch_is_divided_as_evenly_as_it_goes(batch: int, world: int, accumulate: int) -> None:
    sizes = [size for worker in shares(batch, world, accumulate) for size in worker]
    assert sum(sizes) == batch
    assert max(sizes) - min(sizes) <= 1


def test_sixteen_crops_for_three_workers() -> None:
    assert shares(16, 3, 1) == ((6,), (5,), (5,))


def test_uneven_shares_are_the_crops_that_one_worker_would_take(tmp_path: Path, cells: Dataset) -> None:
    cache = open_cache(tmp_path, cells, "hash", ModelInput(), SEGMENTATION)
    still = Augmentation(
        flips=False, rotation=0, zoom=(1, 1), elastic=0, gain=0, offset=0, gamma=(1, 1), colour=0, noise=0, blur=0
    )
    alone = passes(sampler(cache, augmentation=still), 3)[0][0]
    parts = [passes(sampler(cache, augmentation=still, rank=rank, world=3), 3)[0][0] for rank in range(3)]
    assert [len(part) for part in parts] == [3, 3, 2]
    assert torch.equal(torch.cat(parts), alone)


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_training_that_goes_on_draws_what_it_would_have_drawn(world: int, tmp_path: Path, index: ShardIndex) -> None:
    schedule = deal_of(index, world=world)
    for rank in range(world):
        whole = sampler(ShardStream(index, schedule, rank, tmp_path / "one"), rank=rank, world=world)
        drawn = [passes(whole, step) for step in range(2 * schedule.steps)]
        for step in (1, schedule.steps - 1, schedule.steps + 2):
            resumed = sampler(ShardStream(index, schedule, rank, tmp_path / "other"), rank=rank, world=world)
            assert same(passes(resumed, step), drawn[step])


def test_crops_come_from_the_shards_that_are_held_and_in_a_round_from_all(tmp_path: Path, index: ShardIndex) -> None:
    schedule = deal_of(index, world=2)
    drawn: Counter[str] = Counter()
    for rank in range(2):
        stream = ShardStream(index, schedule, rank, tmp_path)
        crops = sampler(stream, rank=rank, world=2)
        for step in range(schedule.steps):
            window: Window = stream.window(step)
            names = {entry.file for entry in window.entries}
            assert len(names) < index.examples
            drawn.update(window.entries[draw.example].file for draw in crops.draw(step))
    assert set(drawn) == {file for file, *_ in opened(index)}


def test_a_nodes_disk_holds_this_turn_and_the_next(
    tmp_path: Path, cells: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make_shards(split_of(tmp_path, cells), 1000)  # one image each
    disk, sizes = tmp_path / "disk", [shard.bytes for shard in index.shards]

    def on_disk() -> int:
        """Add up what is mapped of files of that folder, which have no names."""
        lines = Path("/proc/self/maps").read_text().splitlines()
        spans = [line.split()[0].split("-") for line in lines if str(disk) in line]
        return sum(int(end, 16) - int(begin, 16) for begin, end in spans)

    page = os.sysconf("SC_PAGE_SIZE")
    stream = ShardStream(index, deal_of(index), 0, disk)
    fetch, copied = stream._fetch, 0

    def counted(number: int) -> OpenShard:
        nonlocal copied
        copied += sizes[number]
        return fetch(number)

    monkeypatch.setattr(stream, "_fetch", counted)
    most = 0
    for step in range(stream.schedule.steps):
        stream.window(step)
        wait(stream._turns.values())
        most = max(most, on_disk())
    assert 0 < most <= 3 * (max(sizes) + page)
    assert 3 * max(sizes) < sum(sizes) / 2
    assert copied <= sum(sizes) + max(sizes)  # the next round's first
    assert list(disk.iterdir()) == []


def test_classes_are_balanced_over_all_workers_and_turns(tmp_path: Path) -> None:
    cells = make_classification(tmp_path / "cells", images=8, size=128)
    task = TaskChoice(name="classification", arguments=task_arguments(cells))
    source = split_of(tmp_path, cells, task=task, model_input=ModelInput(window=(32, 32)))
    index = make_shards(source, 40_000)
    schedule = deal_of(index, balance=1.0, world=2)
    probability = dict.fromkeys(index.class_counts, 0.0)
    for rank in range(2):
        stream = ShardStream(index, schedule, rank, tmp_path)
        crops = sampler(stream, examples=EXAMPLES["cell"], crop=(32, 32), balance=1.0, rank=rank, world=2)
        for step in range(schedule.steps):
            window = stream.window(step)
            for example, place, chance in zip(*crops._places(window), strict=True):
                probability[int(window.truth(example)[place, 0])] += chance / (2 * schedule.steps)
    assert len(probability) > 2
    np.testing.assert_allclose(list(probability.values()), 1 / len(probability), rtol=1e-3)


def test_a_disk_that_takes_nothing_is_reported(tmp_path: Path, index: ShardIndex) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlatformError, match="cannot be copied") as raised:
        ShardStream(index, deal_of(index), 0, tmp_path / "file").window(0)
    assert "data.shards.held" in (raised.value.hint or "")


def with_shards(plan: Plan, **shards: Any) -> Plan:
    data = plan.recipe.data.model_copy(update={"shards": plan.recipe.data.shards.model_copy(update=shards)})
    return replace(plan, recipe=plan.recipe.model_copy(update={"data": data}))


def test_small_sets_lie_whole_on_a_node_and_large_ones_do_not(make_plan: MakePlan) -> None:
    plan = make_plan()
    assert isinstance(open_source(plan), Cache)
    assert isinstance(open_source(with_shards(plan, above_gigabytes=0.0001)), ShardStream)
    assert isinstance(open_source(with_shards(plan, above_gigabytes=0.0001, use="never")), Cache)
    assert isinstance(open_source(with_shards(plan, use="always")), ShardStream)


@pytest.mark.slow
def test_a_training_on_shards_ends_with_the_same_weights_when_it_is_interrupted(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    plan = with_shards(make_plan(epochs=4), use="always", megabytes=0.12, held=1)
    device = torch.device("cpu")
    whole = FolderReporter(tmp_path / "whole")
    progress = train(plan, whole, device=device)

    class Interrupted(FolderReporter):
        def report(self, metrics: Any, checkpoint: Any) -> None:
            super().report(metrics, checkpoint)
            if metrics.get("epoch") == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, Interrupted(tmp_path / "parts"), device=device)
    again = FolderReporter(tmp_path / "parts")
    assert train(plan, again, device=device).best == progress.best
    one, other = whole.latest(), again.latest()
    assert one is not None
    assert one.best
    assert other is not None
    assert other.best
    assert all(torch.equal(one.best[name], other.best[name]) for name in one.best)
