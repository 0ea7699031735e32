"""Tiles cover an image once, start where the network's cells start, and carry the halo they need."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.tiles import core_for_budget, extent, tile_region, whole

shapes = st.lists(st.integers(1, 60), min_size=2, max_size=3).map(tuple)


@given(shape=shapes, core=st.integers(9, 80), halo=st.integers(0, 40), stride=st.sampled_from([1, 2, 8, 16]))
def test_cores_cover_every_pixel_once(shape: tuple[int, ...], core: int, halo: int, stride: int) -> None:
    covered = np.zeros(shape, np.int32)
    for tile in tile_region(whole(shape), shape, (core,) * len(shape), halo, stride=stride):
        covered[tile.core] += 1
    assert (covered == 1).all()


@pytest.mark.slow
@given(shape=shapes, core=st.integers(9, 80), halo=st.integers(0, 40), stride=st.sampled_from([1, 2, 8, 16]))
def test_tiles_start_at_cells_and_carry_the_halo(shape: tuple[int, ...], core: int, halo: int, stride: int) -> None:
    array = np.arange(math.prod(shape)).reshape(shape)
    for tile in tile_region(whole(shape), shape, (core,) * len(shape), halo, stride=stride):
        for own, read, length in zip(tile.core, tile.outer, shape, strict=True):
            assert read.start % stride == 0
            assert read.start == 0 or own.start - read.start >= halo
            assert read.stop == length or read.stop - own.stop >= halo
        assert np.array_equal(array[tile.outer][tile.inner], array[tile.core])


@pytest.mark.slow
@given(
    shape=st.lists(st.integers(1, 4000), min_size=2, max_size=3).map(tuple),
    halo=st.integers(0, 64),
    pixels=st.integers(1, 4_000_000),
)
def test_a_tile_keeps_to_the_budget_unless_the_halo_alone_exceeds_it(
    shape: tuple[int, ...], halo: int, pixels: int
) -> None:
    core = core_for_budget(shape, halo, pixels)
    assert all(1 <= side <= length for side, length in zip(core, shape, strict=True))
    read = [
        max(extent(tile.outer)[0] for tile in tile_region(whole((length,)), (length,), (side,), halo))
        for side, length in zip(core, shape, strict=True)
    ]
    narrow = all(side < 2 * max(halo, 1) or side == length for side, length in zip(core, shape, strict=True))
    assert math.prod(read) <= pixels or narrow
    if math.prod(shape) <= pixels:
        assert core == shape


def test_an_image_just_over_the_budget_is_cut_once() -> None:
    assert core_for_budget((4096, 4096), 224, 10_000_000, stride=32) == (2048, 4096)


def test_a_large_image_is_cut_into_about_squares() -> None:
    core = core_for_budget((20_000, 30_000), 224, 10_000_000, stride=32)
    assert max(core) / min(core) < 1.3


def test_extent_is_the_shape_of_a_region() -> None:
    assert extent((slice(2, 5), slice(0, 7))) == (3, 7)
