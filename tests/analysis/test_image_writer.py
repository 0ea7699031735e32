"""Writing: what was written is what is read, and nothing half-written is ever seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
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
from cytoray_analysis.images.label_values import lossy_codec

SHAPES = {"T": 2, "C": 3, "Z": 4, "Y": 20, "X": 24}
FORMATS = [".ome.tif", ".tif", ".ome.zarr"]


@pytest.mark.slow
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
@pytest.mark.parametrize("largest", [7, 65_535])
def test_labels_survive_every_format(suffix: str, largest: int, tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.int64)
    labels[3:9, 4:12] = largest
    path = tmp_path / f"labels{suffix}"
    write_labels(path, labels, pixel_size={"Y": 0.5, "X": 0.5})
    back = read_labels(path)
    assert back.dtype == np.uint16
    assert np.array_equal(back, labels)
    if suffix != ".png":
        assert read_image(path).pixel_size == pytest.approx({"Y": 0.5, "X": 0.5})


@pytest.mark.parametrize("suffix", [*FORMATS, ".png"])
@pytest.mark.parametrize("largest", [65_536, 2**31, 2**53])
def test_labels_that_16_bits_do_not_hold_are_renumbered_with_a_table(suffix: str, largest: int, tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.int64)
    labels[3:9, 4:12], labels[12:15] = largest, 5
    write_labels(tmp_path / f"labels{suffix}", labels)
    back = read_labels(tmp_path / f"labels{suffix}")
    assert back.dtype == np.uint16
    table = (tmp_path / f"labels{suffix}.numbers.csv").read_text().splitlines()
    assert table == ["number,label", "1,5", f"2,{largest}"]
    assert np.array_equal(np.array([0, 5, largest])[back], labels)


def test_more_objects_than_16_bits_number_take_32(tmp_path: Path) -> None:
    labels = np.arange(300 * 300, dtype=np.int64).reshape(300, 300)
    write_labels(tmp_path / "labels.tif", labels)
    assert read_labels(tmp_path / "labels.tif").dtype == np.uint32
    assert np.array_equal(read_labels(tmp_path / "labels.tif"), labels)
    with pytest.raises(ImageError, match="expected 2D labels up to 65535 for PNG"):
        write_labels(tmp_path / "labels.png", labels)
    assert not (tmp_path / "labels.png").exists()


def test_whole_real_numbers_are_labels(tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.float32)
    labels[3:9, 4:12] = 70_000
    write_image(tmp_path / "labels.tif", image_from_array(labels, "YX"))
    back = read_labels(tmp_path / "labels.tif")
    assert back.dtype.kind == "i"
    assert np.array_equal(back, labels)


@pytest.mark.parametrize("inside", ["jpeg", "tiff"])
def test_jpeg_is_no_label_image(inside: str, tmp_path: Path) -> None:
    labels = np.zeros((32, 32), np.uint8)
    labels[4:12, 4:12] = 20
    path = tmp_path / "labels.tif"
    if inside == "tiff":
        tifffile.imwrite(path, labels, compression="jpeg")
    else:
        path.write_bytes(imagecodecs.jpeg8_encode(labels))
    with pytest.raises(ImageError, match="with lossless compression, got JPEG"):
        read_labels(path)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "deflate"},
        {"compression": "lzw"},
        {"compression": None},
        {"compression": "webp", "compressionargs": {"lossless": True}},
        {"compression": "jpeg2000", "compressionargs": {"reversible": True, "level": 0}},
        {"compression": "jpeg", "compressionargs": {"lossless": True}},
    ],
)
def test_codecs_without_loss_hold_labels(options: dict[str, Any], tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "labels.tif", np.zeros((32, 32, 3), np.uint8), photometric="rgb", **options)
    assert lossy_codec(tmp_path / "labels.tif") is None


@pytest.mark.parametrize("codec", ["webp", "jpeg2000"])
def test_codecs_with_loss_do_not(codec: str, tmp_path: Path) -> None:
    options: dict[str, Any] = (
        {"level": 60, "lossless": False} if codec == "webp" else {"reversible": False, "level": 40}
    )
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    tifffile.imwrite(tmp_path / "labels.tif", pixels, photometric="rgb", compression=codec, compressionargs=options)
    assert lossy_codec(tmp_path / "labels.tif") is not None


def test_volumes_of_labels_keep_their_depth(tmp_path: Path) -> None:
    labels = np.arange(4 * 5 * 6, dtype=np.int32).reshape(4, 5, 6)
    for suffix in FORMATS:
        write_labels(tmp_path / f"labels{suffix}", labels)
        assert np.array_equal(read_labels(tmp_path / f"labels{suffix}"), labels)


@pytest.mark.slow
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
    with pytest.raises(RequestError, match="a known format"):
        write_labels(tmp_path / "labels.bmp", np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.zeros((4, 4), np.float32), "expected integer labels"),
        (np.full((4, 4), -1), "of at least 0"),
        (np.zeros((1, 2, 3, 4), np.uint8), "expected integer labels"),
    ],
)
def test_what_is_no_label_image_is_not_written(labels: np.ndarray, match: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=match):
        write_labels(tmp_path / "labels.tif", labels)


@pytest.mark.parametrize(
    ("pixels", "axes", "match"),
    [
        (np.full((4, 4), 1.5, np.float32), "YX", "expected whole numbers in a label image, got 1.5"),
        (np.full((4, 4), 2.0**24 + 2, np.float32), "YX", "labels up to 16777216 in float32"),
        (np.full((4, 4), np.nan, np.float32), "YX", "expected whole numbers in a label image, got nan"),
        (np.full((4, 4), -3, np.int16), "YX", "of at least 0, got -3"),
        (np.ones((3, 4, 4), np.uint8), "CYX", "axes YX or ZYX, got CYX"),
    ],
)
def test_what_is_no_label_image_is_not_read(pixels: np.ndarray, axes: str, match: str, tmp_path: Path) -> None:
    write_image(tmp_path / "labels.ome.tif", image_from_array(pixels, axes))
    with pytest.raises(ImageError, match=match):
        read_labels(tmp_path / "labels.ome.tif")
