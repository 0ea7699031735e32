"""Objects have one piece and no holes, by their own pixels alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, label

from cytoray_analysis.tasks.whole_objects import make_whole

Labels = NDArray[np.int32]


def whole(labels: Labels) -> Labels:
    volume = labels.copy().reshape((1,) * (3 - labels.ndim) + labels.shape)
    make_whole(volume, int(labels.max(initial=0)), flat=labels.ndim == 2)
    return volume.reshape(labels.shape)


def expected(labels: Labels) -> Labels:
    """Do the same with SciPy, object by object."""
    result = np.zeros_like(labels)
    kept = {}
    for number in range(1, int(labels.max(initial=0)) + 1):
        pieces, _ = label(labels == number)
        sizes = np.bincount(pieces.ravel())[1:]
        if sizes.size:
            kept[number] = pieces == 1 + sizes.argmax()
            result[kept[number]] = number
    boxes = {number: np.prod(np.ptp(np.argwhere(piece), axis=0) + 1) for number, piece in kept.items()}
    for number in sorted(kept, key=lambda one: (boxes[one], one)):
        inner = binary_fill_holes(kept[number]) & ~kept[number]
        result[inner & (result == 0)] = number
    return result


small = arrays(np.int32, (9, 10), elements=st.integers(0, 3))
deep = arrays(np.int32, (4, 5, 5), elements=st.integers(0, 2))


@settings(max_examples=200)
@given(small)
def test_images_are_cleaned_as_scipy_would(labels: Labels) -> None:
    assert np.array_equal(whole(labels), expected(labels))


@settings(max_examples=100)
@given(deep)
def test_volumes_are_cleaned_as_scipy_would(labels: Labels) -> None:
    assert np.array_equal(whole(labels), expected(labels))


def test_an_enclosed_object_stays_and_keeps_its_own_hole() -> None:
    labels = np.zeros((11, 11), np.int32)
    labels[:, :] = 1
    labels[2:9, 2:9] = 0
    labels[3:8, 3:8] = 2
    labels[5, 5] = 0
    cleaned = whole(labels)
    assert cleaned[5, 5] == 2
    assert cleaned[2, 2] == 1
    assert (cleaned == 2).sum() == 25


def test_a_bay_at_the_border_of_the_image_is_no_hole() -> None:
    labels = np.ones((6, 6), np.int32)
    labels[0:3, 2:4] = 0
    assert (whole(labels) == labels).all()
