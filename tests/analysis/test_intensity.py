"""Intensity scaling: the same range for every image, and no noise blown up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pydantic import ValidationError

from cytoray_analysis.errors import AxesError, BundleError, DatasetError, ImageError
from cytoray_analysis.images import (
    IntensityScaling,
    IntensityStatistics,
    fit_statistics,
    image_from_array,
    intensity_map,
    measure_image,
    measure_range,
    sample_for_statistics,
    scale_intensities,
)
from cytoray_analysis.images.intensity import percentiles

PERCENTILE = IntensityScaling()
ZSCORE = IntensityScaling(method="zscore")


def scaled(image: np.ndarray, scaling: IntensityScaling, statistics: IntensityStatistics | None = None) -> np.ndarray:
    return scale_intensities(image, *intensity_map(image, scaling, statistics))


def noisy(mean: float, contrast: float, *, seed: int = 0, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = rng.normal(mean, contrast / 50, (channels, 64, 64))
    image[:, 20:40, 20:40] += contrast
    return image.clip(0, 65_535).astype(np.uint16)


@pytest.mark.slow
@given(
    values=arrays(
        st.sampled_from([np.uint8, np.int8, np.uint16, np.int16]), array_shapes(min_dims=1, max_dims=2, max_side=40)
    ),
    low=st.floats(0, 100),
    high=st.floats(0, 100),
)
def test_counted_percentiles_are_those_of_numpy(values: np.ndarray, low: float, high: float) -> None:
    expected = np.percentile(values.astype(np.float64), (low, high))
    assert percentiles(values, low, high) == pytest.approx(tuple(expected), abs=1e-6)


@pytest.mark.parametrize("factor", [0.01, 1.0, 20.0])
def test_exposure_does_not_matter(factor: float) -> None:
    image = noisy(500, 2_000).astype(np.float32)
    assert scaled(image * factor + 3, PERCENTILE) == pytest.approx(scaled(image, PERCENTILE), abs=1e-4)


def test_percentiles_become_nought_and_one() -> None:
    image = noisy(100, 1_000)
    result = scaled(image, IntensityScaling(low=10, high=90))
    assert np.percentile(result, [10, 90]) == pytest.approx([0, 1], abs=1e-5)


def test_zscore_gives_mean_nought_and_deviation_one() -> None:
    result = scaled(noisy(300, 500), ZSCORE)
    assert [result.mean(), result.std()] == pytest.approx([0, 1], abs=1e-4)


@pytest.mark.parametrize("scaling", [PERCENTILE, ZSCORE])
def test_an_empty_field_is_not_blown_up_into_noise(scaling: IntensityScaling) -> None:
    empty = np.random.default_rng(0).normal(100, 3, (1, 64, 64)).clip(0).astype(np.uint16)
    assert not scaled(empty, scaling).any()
    assert not scaled(empty.astype(np.float32) / 65_535, scaling).any()


@pytest.mark.parametrize("scaling", [PERCENTILE, ZSCORE])
@pytest.mark.parametrize("copy", ["shift 8", "shift 4", "over 257", "least to most", "float", "nought to one"])
def test_copies_of_a_picture_are_scaled_like_the_picture(copy: str, scaling: IntensityScaling) -> None:
    picture = noisy(3_000, 40_000)
    statistics = fit_statistics([noisy(3_000, 50_000, seed=seed) for seed in range(3)], scaling)
    span = int(picture.max()) - int(picture.min())
    copied = {
        "shift 8": (picture >> 8).astype(np.uint8),
        "shift 4": picture >> 4,
        "over 257": (picture / 257).round().astype(np.uint8),
        "least to most": ((picture - picture.min()) / span * 255).astype(np.uint8),
        "float": picture.astype(np.float32),
        "nought to one": picture / 65_535,
    }[copy]
    assert scaled(copied, scaling, statistics) == pytest.approx(scaled(picture, scaling, statistics), abs=0.03)


@pytest.mark.parametrize(
    ("dtype", "start", "step"),
    [
        (np.uint32, 2**32 - 20, 10),
        (np.int32, -(2**31), 10),
        (np.int64, 2**40, 10),
        (np.float64, 1e9, 1e-3),
        (np.float32, 1e30, 1e30),
        (np.float32, -3e38, 3e38),
        (np.float32, 0.0, 1e-42),
        (np.float64, 0.0, 1e-200),
        (np.float16, -60_000, 60_000),
        (np.bool_, 0, 1),
    ],
)
def test_no_type_and_no_magnitude_loses_a_picture(dtype: Any, start: float, step: float) -> None:
    square = np.zeros((1, 64, 64))
    square[:, 20:40, 20:40] = 1
    image = np.where(square > 0, dtype(start) + dtype(step), dtype(start)).astype(dtype)
    assert scaled(image, PERCENTILE) == pytest.approx(square, abs=1e-5)


def test_one_wrong_pixel_of_real_numbers_stays_finite() -> None:
    image = noisy(500, 2_000).astype(np.float32) / 65_535
    image[0, 3, 3] = 3e38
    assert np.isfinite(scaled(image, PERCENTILE)).all()


def test_a_range_that_is_no_number_is_refused() -> None:
    image = np.zeros((1, 64, 64))
    image[:, :32] = -1.7e308
    image[:, 32:] = 1.7e308
    with pytest.raises(ImageError, match="range of real numbers"):
        intensity_map(image, PERCENTILE, None)


@pytest.mark.parametrize("scaling", [PERCENTILE, ZSCORE])
def test_a_constant_image_becomes_nought(scaling: IntensityScaling) -> None:
    assert not scaled(np.full((2, 8, 8), 77, np.uint8), scaling).any()


def test_a_few_bright_pixels_on_nothing_do_not_explode() -> None:
    image = np.zeros((1, 100, 100), np.uint16)
    image[0, 5:8, 5:8] = 60_000
    assert scaled(image, PERCENTILE).max() == pytest.approx(1.0)


def test_channels_are_scaled_each_by_itself() -> None:
    image = np.concatenate([noisy(100, 50), noisy(5_000, 9_000)])
    first, second = scaled(image, PERCENTILE)
    assert first == pytest.approx(scaled(image[:1], PERCENTILE)[0])
    assert second == pytest.approx(scaled(image[1:], PERCENTILE)[0])


def test_statistics_are_those_of_all_training_pixels() -> None:
    images = [noisy(100 * index, 400, seed=index, channels=2) for index in range(1, 5)]
    statistics = fit_statistics(iter(images), PERCENTILE)
    pixels = np.concatenate([image.reshape(2, -1) for image in images], axis=1).astype(float)
    assert statistics.mean == pytest.approx(tuple(pixels.mean(axis=1)))
    assert statistics.std == pytest.approx(tuple(pixels.std(axis=1)))
    lows = [np.percentile(image.reshape(2, -1), 1.0, axis=1) for image in images]
    assert statistics.low == pytest.approx(tuple(np.median(lows, axis=0)))


def test_statistics_of_the_data_set_scale_every_image_alike() -> None:
    scaling = IntensityScaling(scope="dataset")
    statistics = fit_statistics([noisy(100, 1_000), noisy(120, 900, seed=1)], scaling)
    bright, dim = scaled(noisy(100, 1_000), scaling, statistics), scaled(noisy(100, 300), scaling, statistics)
    assert float(bright.max()) == pytest.approx(1.0, abs=0.3)
    assert float(dim.max()) < 0.5


def test_the_scope_of_the_data_set_needs_statistics() -> None:
    with pytest.raises(BundleError, match="expected the statistics"):
        intensity_map(noisy(1, 1), IntensityScaling(scope="dataset"), None)


def test_statistics_of_other_channels_are_refused() -> None:
    statistics = fit_statistics([noisy(100, 100)], PERCENTILE)
    with pytest.raises(AxesError, match="expected an image with 1 channels, got 2"):
        intensity_map(noisy(100, 100, channels=2), PERCENTILE, statistics)
    with pytest.raises(AxesError, match="with the same channels"):
        fit_statistics([noisy(1, 1), noisy(1, 1, channels=2)], PERCENTILE)


def test_no_training_image_is_an_error() -> None:
    with pytest.raises(DatasetError, match="at least one training image"):
        fit_statistics([], PERCENTILE)


def test_statistics_survive_being_written() -> None:
    statistics = fit_statistics([noisy(100, 1_000)], PERCENTILE)
    assert IntensityStatistics.model_validate_json(statistics.model_dump_json()) == statistics


@pytest.mark.parametrize("values", [{"low": 50, "high": 50}, {"low": -1}, {"high": 101}, {"method": "log"}, {"lo": 1}])
def test_impossible_scalings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        IntensityScaling.model_validate(values)


def test_a_small_image_is_sampled_whole() -> None:
    image = image_from_array(noisy(100, 900, channels=2), "CYX")
    assert np.array_equal(sample_for_statistics(image)[:, 0], image.read())


def test_the_sample_of_a_large_image_is_small_even_and_always_the_same() -> None:
    class Gradient:
        """A plane of 40,000 × 40,000 that exists only where it is looked at."""

        shape, dtype = (2, 40_000, 40_000), np.dtype(np.float32)

        def __getitem__(self, region: tuple[slice, ...]) -> np.ndarray:
            channel, rows, columns = (
                np.arange(*part.indices(length)) for part, length in zip(region, self.shape, strict=True)
            )
            return np.asarray((channel[:, None, None] + 1) * (rows[:, None] + columns) / 80_000, np.float32)

    image = image_from_array(Gradient(), "CYX")
    sample = sample_for_statistics(image, at_most_pixels=2**20)
    assert sample.shape[0] == 2
    assert 2**18 <= sample[0].size <= 2**20
    assert np.array_equal(sample, sample_for_statistics(image, at_most_pixels=2**20))
    assert sample.mean(axis=(1, 2, 3)) == pytest.approx([0.5, 1.0], abs=0.01)


@pytest.mark.parametrize("shape", [(2, 3, 5, 300, 70), (1, 1, 40, 200, 200), (9, 1, 1, 600, 257)])
def test_the_sample_of_a_large_stack_stays_within_its_pixels(shape: tuple[int, ...]) -> None:
    image = image_from_array(np.random.default_rng(0).integers(0, 99, shape, dtype=np.uint8), "TCZYX")
    sample = sample_for_statistics(image, at_most_pixels=2**17)
    assert sample.shape[0] == shape[1]
    assert 0 < sample[0].size <= 2**17


def test_pixels_that_are_no_numbers_are_noticed() -> None:
    pixels = np.ones((1, 32, 32), np.float32)
    pixels[0, 3, 3] = np.nan
    with pytest.raises(ImageError, match="finite"):
        sample_for_statistics(image_from_array(pixels, "CYX"))
    with pytest.raises(ImageError, match="finite"):
        fit_statistics([pixels], PERCENTILE)


def test_images_of_real_numbers_are_scaled_whatever_their_unit() -> None:
    integers = noisy(20, 200).astype(np.uint8)
    statistics = fit_statistics([integers], IntensityScaling())
    for unit in (1.0, 1e-3, 255.0):
        real = integers.astype(np.float32) / 255 * unit
        assert np.percentile(scaled(real, PERCENTILE, statistics), 99.8) == pytest.approx(1.0, abs=0.02)


class Plain:
    """A dark plane of noise, too large to be read whole, with an object where `bright` says."""

    shape, dtype = (4_200, 4_200), np.dtype(np.uint16)

    def __init__(self, bright: int | None) -> None:
        self.bright = bright

    def __getitem__(self, region: tuple[slice, ...]) -> np.ndarray:
        rows, columns = (np.arange(*part.indices(length)) for part, length in zip(region, self.shape, strict=True))
        seed = int(rows[0]) * self.shape[1] + int(columns[0])
        pixels = np.random.default_rng(seed).normal(100, 3, (len(rows), len(columns)))
        if self.bright is not None:
            near = np.abs(rows - self.bright) < 10, np.abs(columns - self.bright) < 10
            pixels[np.ix_(*near)] += 500
        return pixels.astype(np.uint16)


@pytest.mark.slow
@pytest.mark.parametrize(("bright", "empty"), [(None, True), (1_030, False)])
def test_a_large_image_is_empty_only_when_all_of_it_is(bright: int | None, empty: bool) -> None:
    image = image_from_array(Plain(bright), "YX")
    _, sampled = measure_range(sample_for_statistics(image), PERCENTILE)
    _, spread = measure_image(image, PERCENTILE)
    assert sampled[0] == 0
    assert (spread[0] == 0) == empty
