"""Writing: what was written is what is read, and nothing half-written is ever seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytoray_analysis.errors import ImageError, RequestError
from cytoray_analysis.images import (
    create_zarr,
    image_from_array,
    read_image,
    read_labels,
    write_image,
    write_labels,
)

SHAPES = {"T": 2, "C": 3, "Z": 4, "Y": 20, "X": 24}
FORMATS = [".ome.tif", ".tif", ".ome.zarr"]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("axes", ["YX", "CYX", "ZYX", "CZYX", "TYX", "TCZYX"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_images_survive_every_format(axes: str, suffix: str, dtype: str, tmp_path: Path) -> None:
    shape = tuple(SHAPES[axis] for axis in axes)
    pixels = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    sizes = {axis: {"Z": 2.0, "Y": 0.7, "X": 0.6}[axis] for axis in axes if axis in "ZYX"}
    names = tuple(f"stain {index}" for index in range(SHAPES["C"] if "C" in axes else 1))
    path = tmp_path / f"image{suffix}"
    write_image(path, image_from_array(pixels, axes, channels=names, pixel_size=sizes))
    back = read_image(path)
    assert back.axes == axes
    assert back.dtype == pixels.dtype
    assert np.array_equal(back.read(), pixels)
    known = {axis: size for axis, size in sizes.items() if axis != "Z" or suffix != ".tif"}
    assert back.pixel_size == pytest.approx(known)
    if suffix != ".tif":
        assert back.channels == names


@pytest.mark.parametrize("suffix", [*FORMATS, ".png"])
@pytest.mark.parametrize(("largest", "dtype"), [(7, np.uint16), (65_535, np.uint16), (65_536, np.uint32)])
def test_labels_survive_every_format(suffix: str, largest: int, dtype: type, tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.int64)
    labels[3:9, 4:12] = largest
    path = tmp_path / f"labels{suffix}"
    if suffix == ".png" and largest > 65_535:
        with pytest.raises(ImageError, match="PNG holds 2D labels up to 65535"):
            write_labels(path, labels)
        assert list(tmp_path.iterdir()) == []
        return
    write_labels(path, labels, pixel_size={"Y": 0.5, "X": 0.5})
    back = read_labels(path)
    assert back.dtype == dtype
    assert np.array_equal(back, labels)
    if suffix != ".png":
        assert read_image(path).pixel_size == pytest.approx({"Y": 0.5, "X": 0.5})


def test_volumes_of_labels_keep_their_depth(tmp_path: Path) -> None:
    labels = np.arange(4 * 5 * 6, dtype=np.int32).reshape(4, 5, 6)
    for suffix in FORMATS:
        write_labels(tmp_path / f"labels{suffix}", labels)
        assert np.array_equal(read_labels(tmp_path / f"labels{suffix}"), labels)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)), chunks=st.tuples(st.integers(1, 40), st.integers(1, 40))
)
def test_a_zarr_filled_region_by_region_is_whole(
    shape: tuple[int, int], chunks: tuple[int, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("zarr") / "labels.ome.zarr"
    labels = np.random.default_rng(1).integers(0, 2**31, shape, dtype=np.uint32)
    array = create_zarr(
        path, "ZYX"[-len(shape) :], shape, dtype="uint32", chunks=chunks, pixel_size={"Y": 1.0, "X": 1.0}
    )
    for top in range(0, shape[0], chunks[0]):
        array[top : top + chunks[0]] = labels[top : top + chunks[0]]
    assert np.array_equal(read_labels(path), labels)


def test_a_new_labels_zarr_is_all_background(tmp_path: Path) -> None:
    path = tmp_path / "labels.ome.zarr"
    create_zarr(path, "YX", (30, 30), dtype="uint32", chunks=(16, 16))[:] = 5
    create_zarr(path, "YX", (20, 20), dtype="uint32", chunks=(16, 16))
    labels = read_labels(path)
    assert labels.shape == (20, 20)
    assert not labels.any()


def test_a_failed_writing_leaves_the_old_file(tmp_path: Path) -> None:
    class Torn:
        shape, dtype = (4, 4), np.dtype(np.uint8)

        def __getitem__(self, region: object) -> np.ndarray:
            raise OSError("the disk went away")

    for suffix in FORMATS:
        path = tmp_path / f"image{suffix}"
        write_image(path, image_from_array(np.full((4, 4), 9, np.uint8), "YX"))
        with pytest.raises(ImageError, match="the disk went away"):
            write_image(path, image_from_array(Torn(), "YX"))
        assert read_image(path).read()[0, 0] == 9
    assert len(list(tmp_path.iterdir())) == len(FORMATS)


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="format to write"):
        write_labels(tmp_path / "labels.bmp", np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.zeros((4, 4), np.float32), "must be integers"),
        (np.full((4, 4), -1), "must not be negative"),
        (np.full((4, 4), 2**40), "fit 32 bits"),
        (np.zeros((1, 2, 3, 4), np.uint8), "must be integers"),
    ],
)
def test_what_is_no_label_image_is_not_written(labels: np.ndarray, match: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=match):
        write_labels(tmp_path / "labels.tif", labels)


@pytest.mark.parametrize(
    ("pixels", "axes", "match"),
    [
        (np.ones((4, 4), np.float32), "YX", "holds integers, got float32"),
        (np.full((4, 4), -3, np.int16), "YX", "must not be negative, got -3"),
        (np.ones((3, 4, 4), np.uint8), "CYX", "axes YX or ZYX, got CYX"),
    ],
)
def test_what_is_no_label_image_is_not_read(pixels: np.ndarray, axes: str, match: str, tmp_path: Path) -> None:
    write_image(tmp_path / "labels.ome.tif", image_from_array(pixels, axes))
    with pytest.raises(ImageError, match=match):
        read_labels(tmp_path / "labels.ome.tif")
