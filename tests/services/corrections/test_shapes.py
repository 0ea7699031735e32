"""Outlines and strokes become the pixels that they cover."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.errors import RequestError
from cytoray_services.corrections.interpolating import shapes_between
from cytoray_services.corrections.shapes import Patch, inside_outline, under_brush
from cytoray_services.corrections.splitting import divided

SHAPE = (20, 30)
POINTS = st.tuples(st.floats(-10, 40), st.floats(-10, 30))


def drawn(patch: Patch) -> np.ndarray:
    plane = np.zeros(SHAPE, bool)
    plane[patch.place] = patch.inside
    return plane


def test_an_outline_along_the_edges_of_pixels_covers_exactly_these() -> None:
    plane = drawn(inside_outline([(2, 3), (7, 3), (7, 5), (2, 5)], SHAPE))
    assert np.argwhere(plane).tolist() == [[y, x] for y in (3, 4) for x in range(2, 7)]


def test_an_outline_that_crosses_itself_leaves_out_what_it_surrounds_twice() -> None:
    once = [(1.0, 1.0), (9.0, 1.0), (9.0, 9.0), (1.0, 9.0)]
    assert not drawn(inside_outline(once + once, SHAPE)).any()


@given(st.lists(POINTS, min_size=3, max_size=8))
def test_the_pixels_of_an_outline_are_those_of_the_even_odd_rule(outline: list[tuple[float, float]]) -> None:
    plane = drawn(inside_outline(outline, SHAPE))
    rng = np.random.default_rng(0)
    for y, x in zip(rng.integers(0, SHAPE[0], 20), rng.integers(0, SHAPE[1], 20), strict=True):
        crossings = 0
        for (x0, y0), (x1, y1) in zip(outline, outline[1:] + outline[:1], strict=True):
            if (y0 <= y + 0.5) != (y1 <= y + 0.5):
                crossings += x0 + (y + 0.5 - y0) * (x1 - x0) / (y1 - y0) <= x + 0.5
        assert plane[y, x] == (crossings % 2 == 1)


@given(st.lists(POINTS, min_size=1, max_size=6), st.floats(0.5, 9))
def test_a_brush_covers_what_is_near_its_way(stroke: list[tuple[float, float]], radius: float) -> None:
    plane = drawn(under_brush(stroke, radius, SHAPE))
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    near = np.zeros(SHAPE, bool)
    for (x0, y0), (x1, y1) in zip(stroke, stroke[1:] or stroke, strict=False):
        for share in np.linspace(0, 1, 300):
            near |= np.hypot(x - x0 - share * (x1 - x0), y - y0 - share * (y1 - y0)) <= radius - 0.2
    assert not (near & ~plane).any()
    for px, py in stroke:
        if 0 <= px < SHAPE[1] and 0 <= py < SHAPE[0]:
            assert plane[int(py), int(px)]


def test_a_brush_that_would_take_minutes_is_refused() -> None:
    stroke = [(0.0, 0.0), (4000.0, 4000.0)] * 20
    with pytest.raises(RequestError, match="too long"):
        under_brush(stroke, 400, (4096, 4096))


@given(st.integers(0, 2**32 - 1), st.floats(-5, 35), st.floats(-5, 35))
def test_a_straight_line_divides_each_piece_by_its_two_sides(seed: int, begin: float, end: float) -> None:
    rng = np.random.default_rng(seed)
    inside = np.zeros((1, *SHAPE), bool)
    inside[0, 4:16, 5:25] = True
    inside[0, rng.integers(0, 20, 30), rng.integers(0, 30, 30)] = False
    parts = divided(inside, [(begin, -1.0), (end, 21.0)], (0, 0))
    side = (np.arange(30)[None] + 0.5 - begin) * 22 - (end - begin) * (np.arange(20)[:, None] + 1.5) > 0
    labels = np.zeros(SHAPE, int)
    for part in parts:
        assert (part & inside).sum() == part.sum() > 0
        assert not labels[part[0]].any()
        labels[part[0]] = 1
        assert len(np.unique(side[part[0]])) == 1


def test_a_line_that_ends_inside_divides_nothing() -> None:
    inside = np.ones((1, 10, 10), bool)
    assert divided(inside, [(5.0, -1.0), (5.0, 6.0)], (0, 0)) == []
    assert [part.sum() for part in divided(inside, [(4.0, -1.0), (4.0, 11.0)], (0, 0))] == [40]


def test_a_line_along_the_centres_of_pixels_loses_none() -> None:
    inside = np.ones((2, 10, 10), bool)
    (part,) = divided(inside, [(3.5, 0.0), (3.5, 10.0)], (0, 0))
    assert part.sum() in (60, 80)
    assert (part[0] == part[1]).all()


def test_the_shapes_between_two_disks_move_and_grow_evenly() -> None:
    y, x = np.mgrid[:60, :60]
    first, last = np.hypot(y - 15, x - 15) <= 5, np.hypot(y - 39, x - 39) <= 9
    shapes = list(shapes_between(first, last, 3, (60, 60)))
    for step, patch in enumerate(shapes, start=1):
        plane = np.zeros((60, 60), bool)
        plane[patch.place] = patch.inside
        assert np.argwhere(plane).mean(axis=0) == pytest.approx(15 + 6 * step, abs=0.6)
        assert np.sqrt(plane.sum() / np.pi) == pytest.approx(5 + step, abs=0.4)


def test_a_shape_between_that_leaves_the_plane_is_cut() -> None:
    first, last = np.zeros((2, 12, 12), bool)
    first[0:3, 0:9] = True
    last[9:12, 3:12] = True
    for patch in shapes_between(first, last, 2, (12, 12)):
        assert patch.inside.any()
        assert patch.top >= 0
        assert patch.top + len(patch.inside) <= 12
