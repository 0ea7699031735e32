"""Resampling: sizes, means and label numbers are kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytoray_analysis.errors import AxesError
from cytoray_analysis.images import resample_image, resample_labels


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(shape=st.tuples(st.integers(1, 40), st.integers(1, 40)), zoom=st.floats(0.2, 4.0))
def test_the_size_is_that_of_the_input_times_the_zoom(shape: tuple[int, int], zoom: float) -> None:
    result = resample_image(np.ones((2, *shape), np.uint8), zoom)
    assert result.shape == (2, *(max(1, round(length * zoom)) for length in shape))
    assert result.dtype == np.float32
    assert result == pytest.approx(np.ones_like(result), abs=1e-5)


def test_a_zoom_of_one_changes_nothing() -> None:
    image = np.arange(2 * 5 * 6, dtype=np.uint16).reshape(2, 5, 6)
    assert np.array_equal(resample_image(image, 1.0), image)


@pytest.mark.parametrize("zoom", [0.5, 2.0, 3.0])
def test_a_gradient_stays_where_it_is(zoom: float) -> None:
    image = np.broadcast_to(np.arange(60, dtype=np.float32), (1, 60, 60))
    result = resample_image(image, zoom)[0, 20]
    centres = (np.arange(len(result)) + 0.5) / zoom - 0.5
    inner = slice(4, -4)
    assert result[inner] == pytest.approx(centres[inner], abs=0.05)


def test_shrinking_smooths_first() -> None:
    checkerboard = np.indices((1, 64, 64)).sum(axis=0) % 2 * 1.0
    result = resample_image(checkerboard, 0.25)
    assert np.abs(result[:, 2:-2, 2:-2] - 0.5).max() < 0.1


def test_axes_can_have_zooms_of_their_own() -> None:
    assert resample_image(np.ones((1, 4, 10, 10), np.float32), (2.0, 1.0, 0.5)).shape == (1, 8, 10, 5)
    with pytest.raises(AxesError, match="each of 2 spatial axes"):
        resample_image(np.ones((1, 4, 4)), (1.0, 1.0, 1.0))


@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)), wanted=st.tuples(st.integers(1, 60), st.integers(1, 60))
)
def test_no_label_is_made_up(shape: tuple[int, int], wanted: tuple[int, int]) -> None:
    labels = np.arange(shape[0] * shape[1], dtype=np.uint16).reshape(shape) * 7
    result = resample_labels(labels, wanted)
    assert result.shape == wanted
    assert result.dtype == labels.dtype
    assert set(result.ravel()) <= set(labels.ravel())


@given(shape=st.tuples(st.integers(1, 20), st.integers(1, 20)), factor=st.integers(1, 5))
def test_enlarged_labels_shrink_back_to_themselves(shape: tuple[int, int], factor: int) -> None:
    labels = np.random.default_rng(0).integers(0, 9, shape)
    large = resample_labels(labels, (shape[0] * factor, shape[1] * factor))
    assert np.array_equal(large, labels.repeat(factor, 0).repeat(factor, 1))
    assert np.array_equal(resample_labels(large, shape), labels)


def test_labels_of_other_axes_are_refused() -> None:
    with pytest.raises(AxesError, match="expected 2 lengths"):
        resample_labels(np.zeros((4, 4), np.int32), (4, 4, 4))
