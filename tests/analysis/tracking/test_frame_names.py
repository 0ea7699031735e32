"""Folders of single frames: one movie in the order of its numbers, or one error that says why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.errors import DatasetError
from cytoray_analysis.images import image_from_array, write_image, write_labels
from cytoray_analysis.tracking.ctc import holds_frames, holds_masks, read_masks, read_movie
from cytoray_analysis.tracking.frame_names import FRAMES, MASKS, FrameNames, order_frames


def ordered(*names: str, masks: bool = False) -> FrameNames:
    return order_frames(names, source="f", what="frames", kinds=MASKS if masks else FRAMES)


@given(
    st.sampled_from(["t", "T", "img_", "frame", "2021-05-01_well B3_", "é", ""]),
    st.sampled_from([".tif", ".TIF", ".ome.tif", ".png"]),
    st.integers(2, 30),
    st.integers(1, 6),
    st.randoms(use_true_random=False),
)
def test_frames_come_in_the_order_of_their_numbers(
    before: str, suffix: str, count: int, digits: int, random: object
) -> None:
    names = [f"{before}{number:0{digits}d}{suffix}" for number in range(count)]
    mixed = [*names, "notes.txt", ".DS_Store", "Thumbs.db"]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    found = ordered(*mixed)
    assert found.names == tuple(names)
    assert found.numbers == tuple(range(count))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (("t9999.tif", *(f"t{n:04d}.tif" for n in range(9999)), "t10000.tif"), tuple(range(10001))),
        (("t000.tif", "t001.TIF", "T002.tiff"), (0, 1, 2)),
        (("img_9.tif", "img_10.tif", "img_8.tif"), (8, 9, 10)),
        (("img_20.tif", "img_0.tif", "img_10.tif"), (0, 10, 20)),
        (("pos1_t0_c1.tif", "pos1_t1_c1.tif"), (0, 1)),
        (("f0_0.0s.tif", "f1_0.5s.tif", "f2_1.0s.tif"), (0, 1, 2)),
        (("t000.tif", "mask000.tif", "t001.tif", "mask001.tif"), (0, 1)),
        (("t000.tif",), (0,)),
        (("readme.txt",), ()),
    ],
)
def test_names_as_microscopes_write_them(names: tuple[str, ...], numbers: tuple[int, ...]) -> None:
    assert ordered(*names).numbers == numbers


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("t000.tif", "t001.tif", "t003.TIF"), "expected frames 0 to 3, missing 2"),
        (("t001.tif", "t002.tif"), "missing 0"),
        (("img_0.tif", "img_1.tif", "img_3.tif"), "missing 2"),
        (("t000.tif", "t001.tif", "overview.png"), r"got overview\.png in addition to 2 of that form"),
        (("t000.tif", "t001.tif", "t000.png"), r"found frame 0 twice, as t000\.png and t000\.tif"),
        (("t1.tif", "t01.tif", "t0.tif"), "found frame 1 twice"),
        (("a.tif", "b.tif"), "one name and a number each"),
        (("a.tif", "a.png"), "with numbers in their names"),
        (("s1_t0.tif", "s1_t1.tif", "s2_t0.tif", "s2_t1.tif"), "differ in 2, such as"),
    ],
)
def test_what_is_no_movie_is_one_error_that_says_why(names: tuple[str, ...], said: str) -> None:
    with pytest.raises(DatasetError, match=said) as caught:
        ordered(*names)
    assert caught.value.hint
    assert caught.value.field == "frames"


@given(
    st.lists(st.from_regex(r"[a-c0-3_]{1,4}(\.tif|\.TIF|\.txt)", fullmatch=True), min_size=1, max_size=8, unique=True)
)
def test_no_image_is_dropped_silently(names: list[str]) -> None:
    try:
        found = ordered(*names)
    except DatasetError:
        return
    assert sorted(found.names) == sorted(name for name in names if name.lower().endswith(".tif"))


def write_frames(folder: Path, names: list[str], shape: tuple[int, ...] = (8, 9)) -> Path:
    folder.mkdir()
    for number, name in enumerate(names):
        axes = "ZYX"[-len(shape) :]
        write_image(folder / name, image_from_array(np.full(shape, number, np.uint8), axes))
    return folder


def test_frames_of_any_name_are_read_as_one_movie(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "f", [f"img_{number}.tif" for number in range(11)])
    assert holds_frames(folder)
    movie = read_movie(folder)
    assert (movie.axes, movie.shape) == ("TYX", (11, 8, 9))
    assert movie.read()[:, 0, 0].tolist() == list(range(11))


def test_masks_of_any_name_are_read_as_one_movie(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    for number in (1, 0, 10, *range(2, 10)):
        write_labels(tmp_path / "m" / f"cell_{number}_mask.tif", np.full((8, 9), number + 1, np.uint16))
    assert holds_masks(tmp_path / "m")
    assert read_masks(tmp_path / "m").read()[:, 0, 0].tolist() == list(range(1, 12))


def test_a_folder_of_whole_movies_is_no_movie(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "f", ["movie_1.tif", "movie_2.tif"], (4, 8, 9))
    assert not holds_frames(folder)
    assert holds_frames(folder, spatial_axes="ZYX")
    assert not holds_frames(tmp_path / "nowhere")


def test_a_folder_of_frames_that_cannot_be_ordered_is_one_movie_with_a_reason(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "f", ["a.tif", "b.tif"])
    assert holds_frames(folder)
    with pytest.raises(DatasetError, match="one name and a number each"):
        read_movie(folder)
