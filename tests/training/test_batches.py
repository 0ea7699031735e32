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
from cytoray_analysis.bundle import ModelInput
from cytoray_services.datasets import Dataset
from cytoray_training.batches import Pass, Prefetcher, Sampler
from cytoray_training.cache import Split, open_cache

STILL = Augmentation(
    flips=False, rotation=0, zoom=(1, 1), elastic=0, gain=0, offset=0, gamma=(1, 1), colour=0, noise=0, blur=0
)


@pytest.fixture
def split(tmp_path: Path, cells: Dataset) -> Split:
    return open_cache(tmp_path, cells, "hash", ModelInput()).splits["train"]


def as_it_is(labels: Tensor) -> Tensor:
    return labels.float().unsqueeze(1)


def sampler(split: Split, **changes: Any) -> Sampler:
    settings: dict[str, Any] = {
        "split": split,
        "crop": 64,
        "batch": 8,
        "accumulate": 1,
        "seed": 0,
        "augmentation": Augmentation(),
        "encode": as_it_is,
    }
    return Sampler(**settings | changes)


def same(one: list[Pass], other: list[Pass]) -> bool:
    return all(
        torch.equal(a, b) for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True)
    )


def test_a_step_is_a_function_of_seed_and_step(split: Split) -> None:
    assert same(sampler(split).passes(5), sampler(split).passes(5))
    assert not same(sampler(split).passes(5), sampler(split).passes(6))
    assert not same(sampler(split).passes(5), sampler(split, seed=1).passes(5))


def test_prefetched_steps_are_the_same_from_wherever_they_begin(split: Split) -> None:
    with Prefetcher(sampler(split), range(6)) as whole, Prefetcher(sampler(split), range(3, 6)) as resumed:
        for one, other in zip(list(whole)[3:], resumed, strict=True):
            assert same(one, other)


def test_workers_share_the_crops_that_one_worker_would_take(split: Split) -> None:
    still = {"augmentation": STILL}
    alone = sampler(split, **still).passes(2)[0][0]
    shared = [sampler(split, rank=rank, world=4, **still).passes(2)[0][0] for rank in range(4)]
    assert torch.equal(torch.cat(shared), alone)
    accumulated = [sampler(split, accumulate=2, rank=rank, world=2, **still).passes(2) for rank in range(2)]
    assert torch.equal(torch.cat([accumulated[rank][index][0] for index in range(2) for rank in range(2)]), alone)


def test_a_still_crop_is_the_image_at_that_place(split: Split) -> None:
    still = sampler(split, augmentation=STILL, crop=32)
    images, labels = still.passes(0)[0]
    for index, crop in enumerate(still.draw(0)):
        region = tuple(slice(centre - 16, centre + 16) for centre in crop.centre)
        if any(part.start < 0 or part.stop > 96 for part in region):
            continue
        np.testing.assert_allclose(images[index], split.scaled(crop.image, region), atol=1e-4)
        np.testing.assert_array_equal(labels[index, 0], split.labels_of(crop.image)[region])


def test_beyond_the_image_nothing_is_known(split: Split) -> None:
    images, labels = sampler(split, augmentation=STILL, crop=128).passes(0)[0]
    assert (labels[:, 0, 0] == -1).all()
    assert (images[:, :, 0] == 0).all()
    assert (labels >= 0).float().mean() == pytest.approx((96 / 128) ** 2)


def test_every_image_is_seen_and_crowded_ones_more_often(split: Split) -> None:
    drawn = [crop.image for step in range(300) for crop in sampler(split).draw(step)]
    counts = np.bincount(drawn, minlength=len(split.entries))
    objects = np.array([entry.objects for entry in split.entries])
    assert counts.min() > 0
    expected = np.sqrt(1 + objects) / np.sqrt(1 + objects).sum() * len(drawn)
    np.testing.assert_allclose(counts, expected, rtol=0.25)


def test_an_error_in_the_thread_reaches_the_loop(split: Split) -> None:
    def broken(labels: Tensor) -> Tensor:
        raise ValueError("no target")

    with Prefetcher(sampler(split, encode=broken), range(3)) as batches, pytest.raises(ValueError, match="no target"):
        next(iter(batches))


def test_waiting_is_measured_and_leaving_early_ends_the_thread(split: Split) -> None:
    def slow(labels: Tensor) -> Tensor:
        time.sleep(0.2)
        return as_it_is(labels)

    with Prefetcher(sampler(split, encode=slow), range(1000)) as batches:
        next(iter(batches))
        assert batches.waited >= 0.2
