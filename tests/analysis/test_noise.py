"""Telling the noise of a camera from a picture, in any unit."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, median_filter, uniform_filter, zoom

from cytoray_analysis.images import IntensityScaling, intensity_map, scale_intensities

SIDE = 160
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE] / (SIDE / 2) - 1


def scaled(image: NDArray[np.generic]) -> NDArray[np.float32]:
    return scale_intensities(image[None], *intensity_map(image[None], IntensityScaling(), None))


def copies(image: NDArray[np.uint16]) -> list[NDArray[np.generic]]:
    low, span = int(image.min()), max(int(image.max()) - int(image.min()), 1)
    stretched = ((image - low) / span * 255).astype(np.uint8)
    eight = (image >> 8).astype(np.uint8)
    return [
        image,
        eight,
        image >> 4,
        np.asarray(image / 257).round(),
        stretched,
        image.astype(np.float32),
        image / 65_535,
    ]


def dark(seed: int, offset: float, noise: float, *, poisson: bool = False) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    if poisson:
        return np.asarray(random.poisson(noise, (SIDE, SIDE)) + offset, np.float64)
    return random.normal(offset, noise, (SIDE, SIDE))


def stored(values: NDArray[np.float64]) -> NDArray[np.uint16]:
    return values.round().clip(0, 65_535).astype(np.uint16)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0, 3_000), st.floats(0.2, 60), st.booleans())
def test_no_copy_of_a_dark_frame_shows_anything(seed: int, offset: float, noise: float, poisson: bool) -> None:
    for copy in copies(stored(dark(seed, offset, noise, poisson=poisson))):
        assert not scaled(copy).any()


LARGE = 512


def white() -> NDArray[np.float64]:
    return np.random.default_rng(3).normal(100, 6, (LARGE, LARGE))


def through_jpeg(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    held = io.BytesIO()
    PIL.Image.fromarray((pixels - 40).clip(0, 255).astype(np.uint8)).save(held, "JPEG", quality=75)
    return np.array(PIL.Image.open(held), np.float64)


@pytest.mark.slow
@pytest.mark.parametrize(
    "frame",
    [
        gaussian_filter(white(), 0.7),
        median_filter(white(), 3),
        uniform_filter(white(), 3),
        np.kron(white()[::2, ::2], np.ones((2, 2))),
        zoom(white()[: LARGE // 2, : LARGE // 2], 2, order=3),
        through_jpeg(white()),
    ],
    ids=["gaussian", "median", "mean", "binned and enlarged", "resampled", "JPEG"],
)
def test_noise_that_was_smoothed_shows_nothing(frame: NDArray[np.float64]) -> None:
    assert not scaled(stored(frame)).any()
    for spots in (5, 100, 2_000):
        places = np.zeros_like(frame)
        places[tuple(np.random.default_rng(spots).integers(0, LARGE, (2, spots)))] = 1
        picture = frame + gaussian_filter(places, 1) * 2 * np.pi * 15 * frame.std()
        assert scaled(stored(picture)).any(), f"{spots} spots of 15 times the noise are a picture"


@pytest.mark.parametrize(
    "camera",
    [
        8 * (ROWS**2 + COLUMNS**2),
        12 * np.exp(-((ROWS - 1) ** 2 + (COLUMNS - 1) ** 2)),
        np.random.default_rng(1).normal(0, 2, (1, SIDE)),
        np.where(COLUMNS > 0, 9, 0),
        np.where(np.random.default_rng(2).random((SIDE, SIDE)) < 0.002, 30_000, 0),
        np.where(np.random.default_rng(2).random((SIDE, SIDE)) < 0.0001, 30_000, 0),
    ],
    ids=["darker corners", "glow", "columns", "two halves", "hot pixels", "few hot pixels"],
)
def test_what_a_camera_adds_is_no_picture(camera: NDArray[np.float64]) -> None:
    for copy in copies(stored(dark(0, 300, 3) + camera))[2:]:
        assert not scaled(copy).any()


def disc(radius: float, row: float = 0.1, column: float = -0.2) -> NDArray[np.bool_]:
    return np.asarray(np.hypot(ROWS - row, COLUMNS - column) < radius / (SIDE / 2))


@pytest.mark.parametrize("radius", [3, 8, 30, 70])
@pytest.mark.parametrize("contrast", [12, 40, 4_000])
def test_one_object_on_a_dark_ground_is_a_picture(radius: float, contrast: float) -> None:
    image = dark(3, 200, 1.5) + contrast * disc(radius)
    for copy in (stored(image), image.astype(np.float32), image / 65_535):
        found = scaled(copy)[0]
        assert found[disc(radius)].mean() > found[~disc(radius)].mean() + 0.25


@pytest.mark.parametrize(
    "picture",
    [ROWS + COLUMNS, ROWS**2, COLUMNS > 0, np.floor(COLUMNS * 20) % 2, (ROWS * COLUMNS) > 0],
    ids=["ramp", "bowl", "step", "stripes", "chequers"],
)
def test_smooth_and_regular_pictures_are_pictures(picture: NDArray[np.generic]) -> None:
    assert np.ptp(scaled((picture.astype(np.float64) * 1_000).astype(np.float32))) > 0.9


def test_a_picture_of_a_few_grey_levels_is_a_picture() -> None:
    levels = np.asarray(np.sum([disc(radius) for radius in (10, 20, 30, 40)], axis=0, dtype=np.uint8))
    assert np.ptp(scaled(levels)) == pytest.approx(1.0)


def test_a_picture_too_small_to_tell_is_a_picture() -> None:
    assert scaled(stored(dark(0, 100, 3))[:31, :31]).any()


def test_a_volume_with_one_plane_in_focus_is_a_picture() -> None:
    volume = np.stack([dark(seed, 100, 3) for seed in range(6)])
    assert not scaled(volume).any()
    volume[4] += 60 * disc(10)
    assert scaled(volume)[0, 4][disc(10)].mean() > 1
