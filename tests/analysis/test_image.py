"""An image: its axes, its regions, and what cannot be one."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.errors import AxesError, ImageError, ImageTooLargeError
from cytoray_analysis.images import AXES, image_from_array, read_image, require_finite, write_image
from cytoray_analysis.images.axes import channel_names, micrometres, resolve_axes
from cytoray_analysis.images.image import AxisView

SHAPES = {"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 6}


def numbered(axes: str) -> np.ndarray:
    shape = tuple(SHAPES[axis] for axis in axes)
    return np.arange(np.prod(shape), dtype=np.int32).reshape(shape)


axes_subsets = st.lists(st.sampled_from("TCZ"), unique=True).map(
    lambda chosen: "".join(axis for axis in AXES if axis in {*chosen, "Y", "X"})
)


@given(axes=axes_subsets, data=st.data())
def test_a_region_is_what_numpy_slicing_gives(axes: str, data: st.DataObject) -> None:
    array = numbered(axes)
    region = tuple(
        slice(start, data.draw(st.integers(start + 1, SHAPES[axis])))
        for axis in axes
        for start in [data.draw(st.integers(0, SHAPES[axis] - 1))]
    )
    assert np.array_equal(image_from_array(array, axes).read(region), array[region])


@given(axes=axes_subsets, wanted=axes_subsets, data=st.data())
def test_selecting_axes_keeps_every_pixel_or_refuses(axes: str, wanted: str, data: st.DataObject) -> None:
    lengths = {axis: data.draw(st.sampled_from([1, SHAPES[axis]])) for axis in axes}
    array = np.arange(np.prod(list(lengths.values())), dtype=np.int32).reshape(tuple(lengths.values()))
    eager = image_from_array(array, axes)
    lazy = image_from_array(AxisView(array, (slice(None),) * len(axes), tuple(range(len(axes)))), axes)
    if any(lengths[axis] > 1 for axis in axes if axis not in wanted):
        with pytest.raises(AxesError, match="expected an image with axes"):
            eager.select(wanted)
        return
    expected = array.reshape(tuple(lengths.get(axis, 1) for axis in wanted))
    assert np.array_equal(eager.select(wanted).read(), expected)
    assert np.array_equal(lazy.select(wanted).read(), expected)


def test_a_selected_image_still_decodes_only_the_region() -> None:
    class Counting:
        shape, dtype = (1, 100, 100), np.dtype(np.uint8)
        decoded = 0

        def __getitem__(self, region: tuple[slice | int, ...]) -> np.ndarray:
            part = np.zeros(self.shape, np.uint8)[region]
            self.decoded += part.size
            return part

    source = Counting()
    view = image_from_array(source, "ZYX").select("CYX")
    assert view.read((slice(None), slice(10, 20), slice(0, 5))).shape == (1, 10, 5)
    assert source.decoded == 50


def test_sizes_of_absent_axes_are_one() -> None:
    image = image_from_array(numbered("CYX"), "CYX", channels=("a", "b", "c"), pixel_size={"Y": 0.5, "X": 0.5})
    assert (image.size("C"), image.size("Z"), image.spatial_shape) == (3, 1, (5, 6))
    assert image.pixel_size == {"Y": 0.5, "X": 0.5}


def test_pixels_come_in_the_byte_order_of_the_machine() -> None:
    image = image_from_array(np.arange(6, dtype=">u2").reshape(2, 3), "YX")
    assert image.dtype == np.uint16
    assert image.read().dtype.isnative
    assert image.read()[1, 2] == 5


@pytest.mark.parametrize("axes", ["XY", "CXY", "YXC", "SYX", "ZZYX", "Y", ""])
def test_axes_out_of_order_are_refused(axes: str) -> None:
    with pytest.raises(AxesError, match="TCZYX"):
        image_from_array(np.zeros((2,) * len(axes)), axes)


def test_an_array_with_other_axes_than_named_is_refused() -> None:
    with pytest.raises(AxesError, match="expected 2 axes"):
        image_from_array(np.zeros((2, 3, 4)), "YX")
    with pytest.raises(AxesError, match="expected 2 channel names, got 1"):
        image_from_array(np.zeros((2, 3, 4)), "CYX", channels=("one",))


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(ImageError, match="at least one pixel"):
        image_from_array(np.zeros((0, 0)), "YX")


@pytest.mark.parametrize("dtype", ["complex64", "object", "U3", "datetime64[s]"])
def test_an_image_of_anything_but_numbers_is_refused(dtype: str) -> None:
    with pytest.raises(ImageError, match="expected boolean, integer or real pixels, got"):
        image_from_array(np.zeros((2, 2), dtype), "YX")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_refused(bad: float) -> None:
    pixels = np.ones((8, 8), np.float32)
    require_finite(pixels, "image.tif")
    pixels[3, 4] = bad
    with pytest.raises(ImageError, match=r"image\.tif: expected finite pixels, got 1"):
        require_finite(pixels, "image.tif")


def test_large_but_finite_pixels_pass() -> None:
    require_finite(np.full((64, 64), np.finfo(np.float64).max), "bright.tif")


def test_an_image_can_be_sent_to_another_process() -> None:
    image = pickle.loads(pickle.dumps(image_from_array(numbered("CYX"), "CYX", pixel_size={"Y": 1.0, "X": 1.0})))
    assert np.array_equal(image.select("TCZYX").read()[0, :, 0], numbered("CYX"))


@pytest.mark.parametrize(
    ("letters", "shape", "expected"),
    [
        ("QYX", (5, 4, 4), "ZYX"),
        ("IYX", (5, 4, 4), "ZYX"),
        ("QQYX", (2, 5, 4, 4), "CZYX"),
        ("TQYX", (2, 5, 4, 4), "TZYX"),
        ("YXS", (4, 4, 3), "YXS"),
        ("QYXS", (5, 4, 4, 3), "ZYXS"),
    ],
)
def test_planes_of_unknown_meaning_become_the_innermost_free_axes(
    letters: str, shape: tuple[int, ...], expected: str
) -> None:
    assert resolve_axes(letters, shape, "image.tif") == expected


@pytest.mark.parametrize("letters", ["QQQQYX", "HCYX", "ZZYX"])
def test_one_axis_too_many_is_refused(letters: str) -> None:
    with pytest.raises(AxesError, match="too many"):
        resolve_axes(letters, (2,) * len(letters), "image.tif")


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.5, "µm", 0.5),
        (0.5, "\u03bcm", 0.5),
        (500.0, "nm", 0.5),
        (1.0, "Inch", 25400.0),
        (0.001, "mm", 1.0),
        (1.0, "pixel", None),
        (0.0, "µm", None),
        (float("nan"), "µm", None),
        (None, "µm", None),
    ],
)
def test_lengths_are_known_only_with_their_unit(value: float | None, unit: str, expected: float | None) -> None:
    assert micrometres(value, unit) == (None if expected is None else pytest.approx(expected))


def test_channels_without_names_are_numbered() -> None:
    assert channel_names(None, 2) == ("channel 0", "channel 1")
    assert channel_names(("Channel:0:0", "DAPI"), 2) == ("channel 0", "DAPI")
    assert channel_names(None, 1) == ("grey",)
    assert channel_names(None, 3) == ("channel 0", "channel 1", "channel 2")


def test_an_image_that_does_not_fit_into_memory_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "large.ome.zarr"
    write_image(path, image_from_array(np.ones((32, 32)), "YX"))
    header = path / "0" / "zarr.json"
    header.write_text(json.dumps({**json.loads(header.read_text()), "shape": [2**18, 2**18]}))
    image = read_image(path)
    with pytest.raises(ImageTooLargeError, match=r"it needs 549\.8 GB, \d+\.\d GB are free"):
        image.read()
    np.testing.assert_array_equal(image.read((slice(0, 32), slice(0, 32))), np.ones((32, 32)))
