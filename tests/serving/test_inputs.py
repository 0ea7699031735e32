import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.bundle import ModelInput
from cytoray_analysis.errors import AxesError, ImageError, RequestError
from cytoray_analysis.images import image_from_array
from cytoray_analysis.images.choose import choose
from cytoray_analysis.selection import Selection
from cytoray_serving.inputs import boxes_of_json, cells_of_rows, in_model_axes, label_pixels

FLAT, VOLUMES, MOVIES = ModelInput(axes="CYX"), ModelInput(axes="CZYX"), ModelInput(axes="TYX")
IMAGE = image_from_array(np.zeros((50, 80), np.uint8), "YX")


@pytest.mark.parametrize(
    ("axes", "channels", "model", "taken"),
    [
        ("ZYX", None, MOVIES, "TYX"),
        ("ZYX", None, ModelInput(axes="TZYX"), "TYX"),
        ("CZYX", None, MOVIES, "TZYX"),
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
    size = {"Z": 2.0, "Y": 0.5, "X": 0.5}
    image = image_from_array(pixels, axes, channels=channels, pixel_size=size, guessed_axes=True)
    found = in_model_axes(image, movie=model.movies)
    assert found.axes == taken
    assert ("Z" in (found.pixel_size or {})) == ("Z" in taken)
    np.testing.assert_array_equal(found.read(), pixels)


@pytest.mark.parametrize(("axes", "named"), [("ZYX", "TYX"), ("CZYX", "CTYX")])
def test_a_declared_stack_is_no_movie(axes: str, named: str) -> None:
    image = image_from_array(np.zeros((2, 5, 8, 9)[-len(axes) :], np.uint8), axes)
    with pytest.raises(AxesError, match=f"time points .*z-stack: {axes}") as caught:
        in_model_axes(image, movie=True)
    assert f"--input-axes {named}" in str(caught.value.hint)
    assert in_model_axes(image, movie=False) is image


def test_axes_that_were_given_are_no_guess() -> None:
    image = image_from_array(np.zeros((5, 8, 9), np.uint8), "ZYX", guessed_axes=True)
    with pytest.raises(AxesError, match="z-stack"):
        in_model_axes(choose(image, Selection(input_axes="ZYX")), movie=True)
    assert in_model_axes(choose(image, Selection(input_axes="TYX")), movie=True).axes == "TYX"


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


@pytest.mark.parametrize("labels", [np.full((3, 4, 5), -1), np.full((3, 4, 5), 2**54), np.full((3, 4, 5), 0.5)])
def test_what_is_no_label_image_is_refused(labels: np.ndarray) -> None:
    for axes, model in (("ZYX", VOLUMES), ("TYX", MOVIES)):
        with pytest.raises(ImageError):
            label_pixels(image_from_array(labels, axes), model)


@pytest.mark.parametrize(("fields", "expected"), [({"plane": "0"}, 5), ({"frame": "2"}, 1), ({"plane": "max"}, 5)])
def test_masks_of_a_movie_that_is_chosen_from_have_frames_first(fields: dict[str, str], expected: int) -> None:
    stack = image_from_array(np.arange(5 * 8 * 9).reshape(5, 8, 9).astype(np.uint16), "ZYX", guessed_axes=True)
    masks = label_pixels(stack, MOVIES, Selection(**fields))
    assert masks.axes.replace("T", "") == "YX"
    assert masks.size("T") == expected
