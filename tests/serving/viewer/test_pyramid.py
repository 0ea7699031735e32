"""Pixels as tiles of levels."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cytoray_analysis.errors import RequestError
from cytoray_analysis.images import image_from_array
from cytoray_serving.viewer.pyramid import TILE, pyramid_bytes, read_tile, write_pyramid
from cytoray_serving.viewer.records import Pyramid
from cytoray_serving.viewer.tiles import label_tile, picture_tile


def joined(folder: Path, pyramid: Pyramid, level: int, *, t: int = 0, z: int = 0) -> np.ndarray:
    """Return a level (C, Y, X) put together from its tiles."""
    size = pyramid.levels[level]
    rows = [
        [read_tile(folder, pyramid, level, column, row, t=t, z=z) for column in range(-(-size.width // TILE))]
        for row in range(-(-size.height // TILE))
    ]
    return np.concatenate([np.concatenate(row, axis=2) for row in rows], axis=1)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 700), width=st.integers(1, 700), seed=st.integers(0, 99))
def test_tiles_of_the_first_level_are_the_image(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 65536, (2, height, width), dtype=np.uint16)
    folder = tmp_path_factory.mktemp("pyramid") / "levels"
    image = image_from_array(pixels, "CYX")
    pyramid = write_pyramid(image, folder)
    assert np.array_equal(joined(folder, pyramid, 0), pixels)
    assert max(pyramid.levels[-1].width, pyramid.levels[-1].height) <= TILE
    content = sum(path.stat().st_size - 128 for path in folder.iterdir())
    assert content == pyramid_bytes(image)


@settings(max_examples=50, deadline=None)
@given(labels=arrays.arrays(np.int32, st.tuples(st.integers(257, 300), st.integers(1, 40)), elements=st.integers(0, 3)))
def test_no_object_vanishes_alone_in_a_coarse_level(
    tmp_path_factory: pytest.TempPathFactory, labels: np.ndarray
) -> None:
    folder = tmp_path_factory.mktemp("pyramid") / "levels"
    pyramid = write_pyramid(image_from_array(labels, "YX"), folder, labels=True)
    for level in range(len(pyramid.levels)):
        found = joined(folder, pyramid, level)[0]
        scale = 2**level
        for row, column in zip(*np.nonzero(labels), strict=True):
            assert found[row // scale, column // scale] > 0


def test_a_coarse_pixel_is_the_mean_of_four_also_at_odd_edges(tmp_path: Path) -> None:
    pixels = np.zeros((301, 301), np.uint8)
    pixels[0, 1], pixels[1, 0], pixels[1, 1] = 2, 4, 10
    pixels[300, 300] = 100
    pyramid = write_pyramid(image_from_array(pixels, "YX"), tmp_path / "levels")
    coarse = joined(tmp_path / "levels", pyramid, 1)[0]
    assert coarse.shape == (151, 151)
    assert (coarse[0, 0], coarse[150, 150]) == (4, 100)


def test_frames_planes_and_channels_are_found_again(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 4 * 5 * 6, dtype=np.float64).reshape(2, 3, 4, 5, 6)
    pyramid = write_pyramid(image_from_array(pixels, "TCZYX"), tmp_path / "levels")
    assert pyramid.axes == {"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 6}
    assert np.array_equal(read_tile(tmp_path / "levels", pyramid, 0, 0, 0, t=1, z=2), pixels[1, :, 2])


def test_contrast_is_measured_and_applied(tmp_path: Path) -> None:
    pixels = np.full((300, 300), 100, np.uint16)
    pixels[:150] = 1100
    pixels[0, 0] = 60000
    pyramid = write_pyramid(image_from_array(pixels, "YX"), tmp_path / "levels")
    channel = pyramid.channels[0]
    assert (channel.low, channel.min, channel.max) == (100, 100, 60000)
    assert channel.high < 2000, "one bright pixel does not make the image dark"
    tile = read_tile(tmp_path / "levels", pyramid, 0, 0, 0)
    shown = imagecodecs.png_decode(picture_tile(tile, pyramid, None, 100, 1100))
    assert shown.dtype == np.uint8
    assert set(np.unique(shown)) == {0, 255}
    half = imagecodecs.png_decode(picture_tile(tile, pyramid, 0, 100, 2100))
    assert set(np.unique(half)) == {0, 128, 255}


def test_colours_are_one_picture(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8)
    image = image_from_array(pixels, "CYX", channels=("red", "green", "blue"))
    pyramid = write_pyramid(image, tmp_path / "levels")
    assert pyramid.rgb
    shown = imagecodecs.png_decode(
        picture_tile(read_tile(tmp_path / "levels", pyramid, 0, 0, 0), pyramid, None, None, None)
    )
    assert np.array_equal(shown, np.moveaxis(pixels, 0, -1))


def test_pixels_that_are_no_numbers_are_drawn(tmp_path: Path) -> None:
    pixels = np.array([[np.nan, np.inf], [-np.inf, 1.0]], np.float64)
    pyramid = write_pyramid(image_from_array(pixels, "YX"), tmp_path / "levels")
    tile = read_tile(tmp_path / "levels", pyramid, 0, 0, 0)
    assert np.isfinite(tile).all()
    assert imagecodecs.png_decode(picture_tile(tile, pyramid, None, 0.0, 1.0)).tolist() == [[0, 255], [0, 255]]


def test_labels_are_whole_numbers_of_four_bytes(tmp_path: Path) -> None:
    labels = np.arange(600, dtype=np.int32).reshape(2, 300) + 70_000
    pyramid = write_pyramid(image_from_array(labels, "YX"), tmp_path / "levels", labels=True)
    body = label_tile(read_tile(tmp_path / "levels", pyramid, 0, 1, 0))
    assert np.array_equal(np.frombuffer(body, "<u4").reshape(2, 44), labels[:, 256:])


@pytest.mark.parametrize(
    ("where", "field"),
    [((1, 0, 0), "level"), ((-1, 0, 0), "level"), ((0, 1, 0), "column"), ((0, 0, -1), "row"), ((0, 0, 10**9), "row")],
)
def test_a_tile_outside_is_refused(tmp_path: Path, where: tuple[int, int, int], field: str) -> None:
    pyramid = write_pyramid(image_from_array(np.zeros((9, 9), np.uint8), "YX"), tmp_path / "levels")
    with pytest.raises(RequestError) as caught:
        read_tile(tmp_path / "levels", pyramid, *where)
    assert caught.value.field == field
