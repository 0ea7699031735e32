import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.bundle import ModelInput
from cytoray_analysis.errors import ImageError, RequestError
from cytoray_analysis.images import image_from_array
from cytoray_serving.inputs import boxes_of_json, cells_of_rows, in_model_axes, is_movie, label_pixels, rows_of_csv

FLAT, VOLUMES, MOVIES = ModelInput(axes="CYX"), ModelInput(axes="CZYX"), ModelInput(axes="TYX")
IMAGE = image_from_array(np.zeros((50, 80), np.uint8), "YX")


@pytest.mark.parametrize(
    ("axes", "channels", "model", "taken"),
    [
        ("ZYX", None, MOVIES, "TYX"),
        ("ZYX", None, ModelInput(axes="TZYX"), "TYX"),
        ("CZYX", None, MOVIES, "TZYX"),
        ("CZYX", ["DAPI", "GFP"], MOVIES, "CZYX"),
        ("CYX", None, MOVIES, "CYX"),
        ("TYX", None, MOVIES, "TYX"),
        ("TZYX", None, MOVIES, "TZYX"),
        ("YX", None, MOVIES, "YX"),
        ("ZYX", None, VOLUMES, "ZYX"),
        ("ZYX", None, FLAT, "ZYX"),
    ],
)
def test_stacks_without_names_are_movies_where_a_model_takes_movies(
    axes: str, channels: list[str] | None, model: ModelInput, taken: str
) -> None:
    pixels = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)[(0,) * (4 - len(axes))]
    image = image_from_array(pixels, axes, channels=channels, pixel_size={"Z": 2.0, "Y": 0.5, "X": 0.5})
    found = in_model_axes(image, movie=is_movie(model))
    assert found.axes == taken
    assert ("Z" in (found.pixel_size or {})) == ("Z" in taken)
    np.testing.assert_array_equal(found.read(), pixels)


def test_boxes_have_x_first_and_cells_have_rows_first() -> None:
    cells = boxes_of_json("[[10, 20, 30, 45.5], [0, 0, 5, 5]]", IMAGE, FLAT)
    assert cells.boxes.tolist() == [[[20, 10], [45.5, 30]], [[0, 0], [5, 5]]]
    assert cells.numbers.tolist() == [1, 2]


def test_boxes_of_volumes_have_six_sides() -> None:
    volume = image_from_array(np.zeros((9, 50, 80), np.uint8), "ZYX")
    cells = boxes_of_json("[[10, 20, 1, 30, 45, 4]]", volume, VOLUMES)
    assert cells.boxes.tolist() == [[[1, 20, 10], [4, 45, 30]]]
    assert boxes_of_json("[]", volume, VOLUMES).boxes.shape == (0, 2, 3)


@given(st.lists(st.tuples(st.integers(0, 79), st.integers(0, 49), st.integers(1, 20), st.integers(1, 20))))
def test_boxes_inside_the_image_come_back(boxes: list[tuple[int, int, int, int]]) -> None:
    rows = [[x, y, x + width, y + height] for x, y, width, height in boxes]
    cells = cells_of_rows(rows, IMAGE, FLAT)
    assert [[x0, y0, x1, y1] for (y0, x0), (y1, x1) in cells.boxes.tolist()] == rows


@given(st.one_of(st.text(max_size=30), st.lists(st.lists(st.floats(), max_size=6), max_size=3).map(str)))
def test_any_text_is_boxes_or_is_refused(text: str) -> None:
    with contextlib.suppress(RequestError):
        assert boxes_of_json(text, IMAGE, FLAT).boxes.shape[1:] == (2, 2)


def test_csv_tells_the_images_apart(tmp_path: Path) -> None:
    table = tmp_path / "boxes.csv"
    table.write_text("label,path,xmin,ymin,xmax,ymax\nx,images/a.tif,1,2,3,4\ny,b.tif,5,6,7,8\n")
    assert rows_of_csv(table, Path("elsewhere/a.tif"), alone=False) == [[1, 2, 3, 4]]
    with pytest.raises(RequestError, match=r"no box for c\.tif"):
        rows_of_csv(table, Path("c.tif"), alone=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("xmin,ymin,xmax\n1,2,3\n", "ymax"),
        ("xmin,ymin,xmax,ymax\n1,2,three,4\n", "line 2"),
        ("xmin,ymin,xmax,ymax\n1,2,3\n", "line 2"),
        ("", "no header"),
    ],
)
def test_a_csv_without_boxes_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(RequestError, match=message):
        rows_of_csv(tmp_path / "boxes.csv", Path("a.tif"), alone=True)


def test_a_csv_for_several_images_must_name_them(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("xmin,ymin,xmax,ymax\n1,2,3,4\n")
    assert rows_of_csv(tmp_path / "boxes.csv", Path("a.tif"), alone=True) == [[1, 2, 3, 4]]
    with pytest.raises(RequestError, match="several inputs"):
        rows_of_csv(tmp_path / "boxes.csv", Path("a.tif"), alone=False)


@pytest.mark.parametrize("labels", [np.full((3, 4, 5), -1), np.full((3, 4, 5), 2**30), np.full((3, 4, 5), 0.5)])
def test_what_is_no_label_image_is_refused(labels: np.ndarray) -> None:
    for axes, model in (("ZYX", VOLUMES), ("TYX", MOVIES)):
        with pytest.raises(ImageError):
            label_pixels(image_from_array(labels, axes), model)
