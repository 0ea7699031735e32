"""Crops: the same for the same seed and step, whatever happened before; shared among workers without overlap."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cytoray_analysis.augmentation import Augmentation
from cytoray_analysis.bundle import ModelInput, TaskChoice
from cytoray_analysis.examples import EXAMPLES
from cytoray_services.datasets import Dataset
from cytoray_training.data.batches import Pass, Prefetcher, Sampler
from cytoray_training.data.cache import Cache, open_cache

STILL = Augmentation(
    flips=False, rotation=0, zoom=(1, 1), elastic=0, gain=0, offset=0, gamma=(1, 1), colour=0, noise=0, blur=0
)


@pytest.fixture
def cache(tmp_path: Path, cells: Dataset) -> Cache:
    return open_cache(tmp_path, cells, "hash", ModelInput(), TaskChoice(name="segmentation"))


def as_it_is(labels: Tensor) -> Tensor:
    return labels.float().unsqueeze(1)


def sampler(cache: Cache, **changes: Any) -> Sampler:
    settings: dict[str, Any] = {
        "source": cache,
        "examples": EXAMPLES["pixel"],
        "crop": (64, 64),
        "batch": 8,
        "accumulate": 1,
        "seed": 0,
        "augmentation": Augmentation(),
        "encode": as_it_is,
    }
    return Sampler(**settings | changes)


def passes(sampler: Sampler, step: int) -> list[Pass]:
    return sampler.cut(sampler.drawn(step))


def same(one: list[Pass], other: list[Pass]) -> bool:
    return all(
        torch.equal(a, b) for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True)
    )


def test_a_step_is_a_function_of_seed_and_step(cache: Cache) -> None:
    assert same(passes(sampler(cache), 5), passes(sampler(cache), 5))
    assert not same(passes(sampler(cache), 5), passes(sampler(cache), 6))
    assert not same(passes(sampler(cache), 5), passes(sampler(cache, seed=1), 5))


@pytest.mark.parametrize("threads", [1, 4])
def test_prefetched_steps_are_the_same_from_wherever_they_begin(cache: Cache, threads: int) -> None:
    resuming = Prefetcher(sampler(cache), range(3, 6), threads=threads)
    with Prefetcher(sampler(cache), range(6)) as whole, resuming as resumed:
        for one, other in zip(list(whole)[3:], resumed, strict=True):
            assert same(one, other)


def test_kinds_of_images_give_crops_by_their_shares(cache: Cache) -> None:
    files = [entry.file for entry in cache.entries]
    kinds = {file: "rare" if number == 0 else "common" for number, file in enumerate(files)}
    drawn = sampler(cache, batch=2000, kinds=kinds, shares={"rare": 3.0, "common": 1.0}).draw(0)
    share = sum(kinds[files[draw.example]] == "rare" for draw in drawn) / len(drawn)
    assert 0.7 < share < 0.8


def test_workers_share_the_crops_that_one_worker_would_take(cache: Cache) -> None:
    still = {"augmentation": STILL}
    alone = passes(sampler(cache, **still), 2)[0][0]
    shared = [passes(sampler(cache, rank=rank, world=4, **still), 2)[0][0] for rank in range(4)]
    assert torch.equal(torch.cat(shared), alone)
    accumulated = [passes(sampler(cache, accumulate=2, rank=rank, world=2, **still), 2) for rank in range(2)]
    assert torch.equal(torch.cat([accumulated[rank][index][0] for index in range(2) for rank in range(2)]), alone)


def test_a_still_crop_is_the_image_at_some_place(cache: Cache) -> None:
    still = sampler(cache, augmentation=STILL, crop=(32, 32))
    images, labels = passes(still, 0)[0]
    for index, draw in enumerate(still.draw(0)):
        pixels, truth = cache.pixels(draw.example), cache.truth(draw.example)
        corner = [round(place * (96 - 24)) + 12 - 16 for place in draw.chance]
        around = [slice(max(start - 1, 0), start + 2) for start in corner]
        places = [(y, x) for y in range(*around[0].indices(65)) for x in range(*around[1].indices(65))]
        crops = [(slice(y, y + 32), slice(x, x + 32)) for y, x in places]
        if min(corner) < 0 or max(corner) > 64:
            continue
        found = [crop for crop in crops if np.allclose(images[index], pixels.read(crop), atol=1e-4)]
        assert len(found) == 1
        np.testing.assert_array_equal(labels[index, 0], truth[found[0]])


def test_beyond_the_image_nothing_is_known(cache: Cache) -> None:
    images, labels = passes(sampler(cache, augmentation=STILL, crop=(128, 128)), 0)[0]
    assert (labels[:, 0, 0] == -1).all()
    assert (images[:, :, 0] == 0).all()
    assert (labels >= 0).float().mean() == pytest.approx((96 / 128) ** 2)


def test_every_image_is_seen_and_crowded_ones_more_often(cache: Cache) -> None:
    drawn = [draw.example for step in range(300) for draw in sampler(cache).draw(step)]
    counts = np.bincount(drawn, minlength=len(cache.entries))
    objects = np.array([len(np.unique(cache.truth(index))) - 1 for index in range(len(cache.entries))])
    assert counts.min() > 0
    expected = np.sqrt(1 + objects) / np.sqrt(1 + objects).sum() * len(drawn)
    np.testing.assert_allclose(counts, expected, rtol=0.25)


def test_an_error_in_the_thread_reaches_the_loop(cache: Cache) -> None:
    def broken(labels: Tensor) -> Tensor:
        raise ValueError("no target")

    with Prefetcher(sampler(cache, encode=broken), range(3)) as batches, pytest.raises(ValueError, match="no target"):
        next(iter(batches))


@pytest.mark.slow
def test_waiting_is_measured_and_leaving_early_ends_the_thread(cache: Cache) -> None:
    def slow(labels: Tensor) -> Tensor:
        time.sleep(0.2)
        return as_it_is(labels)

    with Prefetcher(sampler(cache, encode=slow), range(1000)) as batches:
        next(iter(batches))
        assert batches.waited >= 0.2
