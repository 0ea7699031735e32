"""A mask that lies on its image is told from one that is mirrored, transposed or beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cytoray_analysis.mask_fit import describe_turn, measure_fit


def discs(
    seed: int, shape: tuple[int, ...] = (96, 96), *, bright: float = 100.0
) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Return a picture (1, spatial…) of noisy discs (or balls), and its mask."""
    chance = np.random.default_rng(seed)
    image, mask = chance.normal(120, 6, shape), np.zeros(shape, np.uint16)
    places = np.meshgrid(*(np.arange(length) for length in shape), indexing="ij")
    for number in range(1, 9):
        centre = [chance.uniform(5, length - 5) for length in shape]
        inside = sum((place - middle) ** 2 for place, middle in zip(places, centre, strict=True)) <= 36
        mask[inside], image[inside] = number, image[inside] + bright
    return image[np.newaxis].astype(np.float32), mask


@pytest.mark.parametrize("bright", [100.0, -100.0])
@pytest.mark.parametrize("shape", [(96, 96), (80, 130), (24, 64, 64)])
def test_a_mask_in_its_place_fits_best_as_it_is(shape: tuple[int, ...], bright: float) -> None:
    fit = measure_fit(*discs(0, shape, bright=bright))
    assert fit is not None
    assert fit.as_it_is > 2 * fit.turned
    assert set(fit.shift) == {0}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100), st.sampled_from([(True, False), (False, True), (True, True)]), st.booleans())
def test_what_was_done_to_a_mask_is_undone(seed: int, mirrored: tuple[bool, bool], exchanged: bool) -> None:
    image, mask = discs(seed)
    moved = np.flip(mask, tuple(axis for axis, flipped in enumerate(mirrored) if flipped))
    moved = moved.T if exchanged else moved
    fit = measure_fit(image, np.ascontiguousarray(moved))
    assert fit is not None
    assert fit.turned > max(0.5, 1.5 * fit.as_it_is)
    order, flips = fit.turn
    back = moved.transpose(order)
    assert np.array_equal(np.flip(back, tuple(axis for axis, flipped in enumerate(flips) if flipped)), mask)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100), st.integers(-20, 20), st.integers(-20, 20))
def test_a_shift_is_measured(seed: int, down: int, right: int) -> None:
    image, mask = discs(seed)
    fit = measure_fit(image, np.roll(mask, (down, right), (0, 1)))
    assert fit is not None
    assert np.abs(np.array(fit.shift) - (-down, -right)).max() <= 1


def test_what_was_done_is_said_in_words() -> None:
    assert describe_turn(((1, 0), (False, True)), "YX") == "transposed (Y and X exchanged) and mirrored along X"
    assert describe_turn(((0, 1, 2), (False, True, True)), "ZYX") == "mirrored along Y and X"


def test_nothing_is_said_of_a_constant_image_or_an_empty_mask() -> None:
    image, mask = discs(0)
    assert measure_fit(np.ones_like(image), mask) is None
    assert measure_fit(image, np.zeros_like(mask)) is None
