"""Vendors' formats through the readers of the extra ``formats``, shown on a CZI that is written here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cytoray_analysis.errors import UnreadableImageError
from cytoray_analysis.images import list_series, read_image
from cytoray_analysis.selection import Selection

czi = pytest.importorskip("pylibCZIrw.czi", reason="pylibCZIrw, which writes the file, is not installed")
pytest.importorskip("bioio_czi", reason="bioio-czi of the extra formats is not installed")

SIZES = {"Z": 1.5, "Y": 0.25, "X": 0.5}
NAMES = ("DNA", "actin")


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint16]:
    """Give two scenes of two channels and three planes."""
    return np.random.default_rng(0).integers(0, 60_000, (2, 2, 3, 40, 56)).astype(np.uint16)


def write_scenes(path: Path, pixels: NDArray[np.uint16], **metadata: Any) -> Path:
    with czi.create_czi(str(path)) as document:
        for scene, channel, plane in np.ndindex(pixels.shape[:3]):
            document.write(
                data=pixels[scene, channel, plane][..., None],
                plane={"C": channel, "Z": plane, "T": 0},
                scene=scene,
                location=(scene * 1000, 0),
            )
        document.write_metadata(document_name="made for tests", **metadata)
    return path


@pytest.fixture(scope="module")
def file(pixels: NDArray[np.uint16], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a CZI of both scenes with names of channels and sizes, which it stores in metres."""
    return write_scenes(
        tmp_path_factory.mktemp("czi") / "two.czi",
        pixels,
        channel_names=dict(enumerate(NAMES)),
        scale_x=0.5e-6,
        scale_y=0.25e-6,
        scale_z=1.5e-6,
    )


def test_every_scene_is_listed_though_it_has_no_name(file: Path) -> None:
    found = list_series(file)
    assert [one.shape for one in found] == [(1, 2, 3, 40, 56)] * 2
    assert len({one.name for one in found}) == 2


@pytest.mark.parametrize("scene", [0, 1])
@pytest.mark.parametrize("by", ["path", "bytes"])
def test_a_scene_has_its_pixels_names_and_sizes(file: Path, pixels: NDArray[np.uint16], scene: int, by: str) -> None:
    given: Any = file if by == "path" else file.read_bytes()
    image = read_image(given, selection=Selection(series=str(scene)))
    assert image.axes == "CZYX"
    assert image.channels == NAMES
    assert dict(image.pixel_size or {}) == pytest.approx(SIZES)
    assert np.array_equal(image.read(), pixels[scene])


def test_of_two_equal_scenes_none_is_guessed(file: Path) -> None:
    with pytest.raises(UnreadableImageError, match="holds 2 images"):
        read_image(file)


def test_a_plane_and_a_channel_can_be_chosen(file: Path, pixels: NDArray[np.uint16]) -> None:
    chosen = Selection(series="1", channel=("actin",), plane="2")
    for given in (file, file.read_bytes()):
        assert np.array_equal(read_image(given, selection=chosen).read(), pixels[1, 1, 2])


def test_a_file_of_one_scene_without_sizes_has_none(pixels: NDArray[np.uint16], tmp_path: Path) -> None:
    image = read_image(write_scenes(tmp_path / "one.czi", pixels[:1]))
    assert image.axes == "CZYX"
    assert image.pixel_size is None
    assert np.array_equal(image.read(), pixels[0])


def test_a_cut_off_file_is_an_error(file: Path) -> None:
    with pytest.raises(UnreadableImageError):
        read_image(file.read_bytes()[:20_000], selection=Selection(series="1")).read()
