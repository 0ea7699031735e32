"""Answers about images that the network saw at another pixel size: smooth outlines, however the image is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.measure import perimeter_crofton, regionprops

from cytoray_analysis.image_grid import ImageGrid
from cytoray_analysis.images import resample_labels
from cytoray_analysis.tasks.protocol import Block
from cytoray_analysis.tasks.segmentation import InstanceSegmentation

SIDES = st.integers(3, 40)


@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES), st.data())
def test_a_region_is_interpolated_as_the_whole(
    seen: tuple[int, int], shape: tuple[int, int], data: st.DataObject
) -> None:
    grid = ImageGrid(seen, shape)
    outputs = np.random.default_rng(0).normal(size=(2, *seen)).astype(np.float32)
    whole = grid.resample(outputs)
    assert whole.shape == (2, *shape)
    starts = [data.draw(st.integers(0, length - 1)) for length in shape]
    stops = [data.draw(st.integers(start + 1, length)) for start, length in zip(starts, shape, strict=True)]
    region = tuple(slice(*ends) for ends in zip(starts, stops, strict=True))
    part = grid.resample(outputs[(slice(None), *grid.needed(region))], region)
    np.testing.assert_array_equal(part, whole[(slice(None), *region)])


def test_a_linear_ramp_stays_one_and_equal_shapes_change_nothing() -> None:
    ramp = np.arange(8, dtype=np.float32)[np.newaxis, :, np.newaxis].repeat(4, axis=2)
    finer = ImageGrid((8, 4), (16, 8)).resample(ramp)[0, :, 0]
    np.testing.assert_allclose(np.diff(finer)[1:-1], 0.5)
    np.testing.assert_array_equal(ImageGrid((8, 4), (8, 4)).resample(ramp), ramp)


def disks(side: int, radius: float, scale: float = 1.0) -> NDArray[np.int32]:
    """Nine disks, at the same places of a square of any number of pixels."""
    y, x = (np.indices((round(side * scale),) * 2) + 0.5) / scale
    labels = np.zeros(y.shape, np.int32)
    for number in range(9):
        centre = (number // 3 + 0.5) * side / 3, (number % 3 + 0.5) * side / 3
        labels[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = number + 1
    return labels


def perfect_outputs(side: int, radius: float, unit: float) -> NDArray[np.float32]:
    """What a network says that knows where edges are between pixels, and where each pixel's centre is."""
    y, x = np.indices((side, side)) + 0.5
    step = side / 3
    centre_y, centre_x = ((np.floor(axis / step) + 0.5) * step for axis in (y, x))
    distance = np.hypot(y - centre_y, x - centre_x)
    return np.stack((2 * (radius - distance), (centre_y - y) / unit, (centre_x - x) / unit)).astype(np.float32)


@pytest.mark.parametrize("scale", [0.5, 1.5, 2.0, 3.0])
def test_objects_at_the_pixels_of_the_image_have_smooth_outlines(scale: float) -> None:
    task, side, radius = InstanceSegmentation(), 96, 11.0
    outputs = perfect_outputs(side, radius, task.offset_unit)
    shape = (round(side * scale),) * 2
    grid = ImageGrid((side, side), shape)
    decoded = task.decode(grid.resample(outputs), task.output.defaults(), Block((0, 0), shape, grid.scale))
    truth = disks(side, radius, scale)
    assert int(decoded.values.max()) == 9
    assert task.score([decoded.values], [truth])["ap90"] == 1.0
    if scale > 1:  # labels resampled afterwards have stairs
        stairs = resample_labels(task.decode(outputs, task.output.defaults()).values, shape)
        lengths = [
            np.mean([perimeter_crofton(one.image_filled) for one in regionprops(labels)])  # type: ignore[no-untyped-call]
            for labels in (decoded.values, stairs, truth)
        ]
        assert lengths[0] == pytest.approx(lengths[2], rel=0.02)
        assert abs(lengths[1] - lengths[2]) > abs(lengths[0] - lengths[2])


@pytest.mark.parametrize("scale", [1.5, 2.0])
def test_blocks_at_the_pixels_of_the_image_give_the_objects_of_the_whole(scale: float) -> None:
    task, side = InstanceSegmentation(reach=16), 96
    outputs = perfect_outputs(side, 11.0, task.offset_unit)
    parameters = task.output.defaults()
    shape = (round(side * scale),) * 2
    grid = ImageGrid((side, side), shape)
    whole = task.decode(grid.resample(outputs), parameters, Block((0, 0), shape, grid.scale))
    margin = task.output.margin(parameters, grid.scale)
    assert isinstance(margin, tuple)
    core = slice(40, 80)
    ends = zip(margin, shape, strict=True)
    outer = tuple(slice(max(core.start - width, 0), min(core.stop + width, length)) for width, length in ends)
    region = grid.resample(outputs[(slice(None), *grid.needed(outer))], outer)
    part = task.decode(region, parameters, Block(tuple(one.start for one in outer), shape, grid.scale))
    inner = tuple(slice(core.start - one.start, core.stop - one.start) for one in outer)
    assert part.identities is not None
    assert whole.identities is not None
    np.testing.assert_array_equal(part.identities[part.values[inner]], whole.identities[whole.values[core, core]])
