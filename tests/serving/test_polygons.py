from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from cytoray_serving.answers.polygons import Ring, trace_outlines

label_images = arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3))


def signed_area(ring: Ring) -> float:
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring)) / 2


def fill(rings: list[Ring], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Fill by the even-odd rule, each vertical edge flipping all pixels to its right."""
    inside = np.zeros(shape, dtype=bool)
    for ring in rings:
        for (x, y), (next_x, next_y) in pairwise(ring):
            if x == next_x:
                inside[min(y, next_y) : max(y, next_y), x:] ^= True
    return inside


@given(label_images)
def test_polygons_cover_exactly_the_pixels_of_their_object(labels: NDArray[np.int32]) -> None:
    drawn = np.zeros_like(labels)
    for outline in trace_outlines(labels):
        for rings in outline.polygons:
            drawn[fill(rings, labels.shape)] = outline.label
    np.testing.assert_array_equal(drawn, labels)


@given(label_images)
def test_every_object_has_one_outline_with_its_area(labels: NDArray[np.int32]) -> None:
    outlines = trace_outlines(labels)
    numbers, areas = np.unique(labels[labels > 0], return_counts=True)
    assert [outline.label for outline in outlines] == numbers.tolist()
    assert [outline.area for outline in outlines] == areas.tolist()
    for outline in outlines:
        assert sum(signed_area(ring) for rings in outline.polygons for ring in rings) == outline.area


@given(label_images)
def test_rings_are_valid_simple_features(labels: NDArray[np.int32]) -> None:
    for outline in trace_outlines(labels):
        for outer, *holes in outline.polygons:
            assert signed_area(outer) > 0
            assert all(signed_area(hole) < 0 for hole in holes)
            for ring in (outer, *holes):
                assert ring[0] == ring[-1]
                corners = [tuple(corner) for corner in ring[:-1]]
                assert len(set(corners)) == len(corners) >= 4


def test_straight_edges_have_no_corner_between_their_ends() -> None:
    labels = np.zeros((6, 8), np.int32)
    labels[1:5, 2:7] = 4
    (outline,) = trace_outlines(labels)
    assert outline.polygons == [[[[2, 1], [7, 1], [7, 5], [2, 5], [2, 1]]]]


def test_a_hole_that_meets_the_outside_in_a_corner_stays_a_hole() -> None:
    labels = np.ones((4, 4), np.int32)
    labels[0, 0] = labels[1, 1] = 0
    (outline,) = trace_outlines(labels)
    ((_, hole),) = outline.polygons
    assert sorted(map(tuple, hole[:-1])) == [(1, 1), (1, 2), (2, 1), (2, 2)]


@pytest.mark.parametrize("shape", [(0, 0), (3, 3)])
def test_an_image_without_objects_has_no_outlines(shape: tuple[int, int]) -> None:
    assert trace_outlines(np.zeros(shape, np.int32)) == []
