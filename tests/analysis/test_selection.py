"""What is chosen out of a file: read from text, and applied to an image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cytoray_analysis.answer_warnings import AnswerWarning
from cytoray_analysis.bundle import ModelInput
from cytoray_analysis.errors import AxesError, RequestError
from cytoray_analysis.images import Image, image_from_array, read_image
from cytoray_analysis.images.choose import choose, entries_along, follow
from cytoray_analysis.model_input import match_channels
from cytoray_analysis.selection import EVERYTHING, FORMS, Selection, merge, selection_of
from cytoray_analysis.tracking.frames import as_movie

_AXES = ["YX", "CYX", "ZYX", "TYX", "CZYX", "TCYX", "TZYX", "TCZYX"]


@dataclass(frozen=True)
class Lazy:
    """An array that is read as a file is, region by region."""

    array: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    def __getitem__(self, region: tuple[slice, ...]) -> NDArray[Any]:
        assert all(isinstance(part, slice) for part in region)
        return self.array[region]


def stack(axes: str, *, lazy: bool = False, **sizes: int) -> Image:
    lengths = tuple(({"T": 3, "C": 3, "Z": 4, "Y": 5, "X": 6} | sizes)[axis] for axis in axes)
    array = np.random.default_rng(0).integers(0, 1000, lengths, np.uint16)
    names = ["DAPI", "GFP", "RFP"][: lengths[axes.index("C")]] if "C" in axes else None
    pixel_size = {axis: {"Z": 2.0, "Y": 0.5, "X": 0.5}[axis] for axis in axes if axis in "ZYX"}
    return image_from_array(Lazy(array) if lazy else array, axes, channels=names, pixel_size=pixel_size, source="a.tif")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("plane", "-1"), ("plane", "1.5"), ("plane", ""), ("plane", "last"), ("plane", "9" * 5000), ("plane", True),
        ("frame", "max"), ("frame", "first"), ("input_axes", "TY"), ("input_axes", "TTYX"), ("input_axes", "SYX"),
        ("pixel_size", "0"), ("pixel_size", "-1"), ("pixel_size", "1e999"), ("pixel_size", "nan"),
        ("diameter", "0"), ("diameter", "wide"), ("diameter", "1e9"),
        ("pixel_size", "5um"), ("pixel_size", "1x1x1x1"), ("pixel_size", "0.5x"), ("channel", [""]),
        ("channel", ["a"] * 65), ("channel", [{}]), ("series", ""), ("chanel", "DAPI"),
    ],
)  # fmt: skip
def test_a_choice_that_is_none_is_refused_with_its_field_and_what_it_takes(field: str, value: Any) -> None:
    with pytest.raises(RequestError, match="expected") as caught:
        selection_of({field: value})
    assert caught.value.field == field
    assert caught.value.hint
    assert len(caught.value.message) < 400


@given(
    st.dictionaries(st.sampled_from([*FORMS, "other"]), st.text() | st.integers() | st.lists(st.text()) | st.floats())
)
def test_whatever_comes_is_a_choice_or_a_sentence(values: dict[str, Any]) -> None:
    try:
        chosen = selection_of(values)
    except RequestError:
        return
    assert selection_of(chosen.given()) == chosen
    assert Selection.model_validate_json(chosen.model_dump_json()) == chosen
    sizes = chosen.sizes()
    assert sizes is None or all(0 < size < np.inf for size in sizes.values())


def test_numbers_of_recipes_and_json_are_taken_as_they_are_written() -> None:
    chosen = Selection(channel=1, plane=0, frame=2, pixel_size=0.5)
    assert chosen == Selection(channel=("1",), plane="0", frame="2", pixel_size="0.5")
    assert Selection(channel="DAPI").channel == ("DAPI",)
    assert Selection(plane="MAX").plane == "max"


def test_two_places_that_choose_the_same_thing_are_refused() -> None:
    both = merge(Selection(plane="max"), Selection(frame="0"))
    assert both == Selection(plane="max", frame="0")
    with pytest.raises(RequestError, match="plane once"):
        merge(both, Selection(plane="max"))


@given(st.sampled_from(_AXES), st.data(), st.booleans())
def test_what_is_chosen_is_what_slicing_gives(axes: str, data: st.DataObject, lazy: bool) -> None:
    image = stack(axes, lazy=lazy)
    array = image.read()
    fields: dict[str, Any] = {}
    left = axes
    if "C" in axes and (entries := data.draw(st.lists(st.sampled_from([0, 1, 2]), unique=True), label="channels")):
        fields["channel"] = [str(entry) if data.draw(st.booleans()) else image.channels[entry] for entry in entries]
        array = np.take(array, entries, axis=left.index("C"))
        if len(entries) == 1:
            array, left = array.squeeze(left.index("C")), left.replace("C", "")
    if data.draw(st.booleans(), label="a frame"):
        fields["frame"] = str(frame := data.draw(st.integers(0, image.size("T") - 1)))
        if "T" in left:
            array, left = array.take(frame, axis=left.index("T")), left.replace("T", "")
    plane = data.draw(st.sampled_from(["", "max", "number"]))
    if plane:
        number = data.draw(st.integers(0, image.size("Z") - 1))
        fields["plane"] = "max" if plane == "max" else str(number)
        if "Z" in left:
            place = left.index("Z")
            array = array.max(place) if plane == "max" else array.take(number, axis=place)
            left = left.replace("Z", "")
    chosen = choose(image, Selection(**fields))
    assert chosen.axes == left
    assert chosen.shape == array.shape
    np.testing.assert_array_equal(chosen.read(), array)
    region = tuple(slice(0, max(1, length // 2)) for length in array.shape)
    np.testing.assert_array_equal(chosen.read(region), array[region])
    assert chosen.pixel_size == {axis: size for axis, size in (image.pixel_size or {}).items() if axis in left}
    if "channel" in fields:
        assert chosen.channels == tuple(image.channels[entry] for entry in chosen.numbers)


def test_a_choice_keeps_warnings_and_does_not_decode() -> None:
    class Untouched(Lazy):
        def __getitem__(self, region: tuple[slice, ...]) -> NDArray[Any]:
            raise AssertionError("decoded")

    array = np.zeros((3, 2, 4, 5, 6), np.uint8)
    warning = AnswerWarning("frames-missing", "two frames are left out")
    image = image_from_array(Untouched(array), "TCZYX", channels=["a", "b"], warnings=[warning])
    chosen = choose(image, Selection(channel=("b",), plane="max", frame="1", pixel_size="0.5"))
    assert chosen.axes == "YX"
    assert chosen.warnings == (warning,)


@pytest.mark.parametrize(
    ("names", "wanted", "number"),
    [
        (["DAPI", "GFP"], "GFP", 1),
        (["DAPI", "GFP"], "gfp", 1),
        (["DAPI ", "GFP"], "dapi", 0),
        (["1", "0"], "1", 0),
        (["1", "0"], "0", 1),
        (["a", "b"], "1", 1),
        (["\u00b5", "b"], "\u03bc", 0),
        (["dapi", "DAPI"], "DAPI", 1),
    ],
)
def test_a_name_goes_before_a_number(names: list[str], wanted: str, number: int) -> None:
    image = image_from_array(np.zeros((2, 4, 4), np.uint8), "CYX", channels=names)
    chosen = choose(image, Selection(channel=(wanted,)))
    assert (chosen.numbers, chosen.channels) == ((number,), (names[number],))


@pytest.mark.parametrize(
    ("axes", "fields", "words"),
    [
        ("CYX", {"channel": ["Cy5"]}, ["Cy5", "0 DAPI, 1 GFP, 2 RFP", "--channel"]),
        ("CYX", {"channel": ["3"]}, ["'3'", "--channel"]),
        ("CYX", {"channel": ["GFP", "1"]}, ["GFP", "twice"]),
        ("YX", {"channel": ["0", "1"]}, ["'1'", "0 grey"]),
        ("ZYX", {"plane": "4"}, ["4 planes", "number 4", "--plane 0 to 3"]),
        ("ZYX", {"frame": "1"}, ["1 frame", "--input-axes TYX"]),
        ("TYX", {"plane": "1"}, ["1 plane", "--input-axes ZYX"]),
        ("TYX", {"input_axes": "TCYX"}, ["3 axes (TYX = 3 × 5 × 6)", "--input-axes TYX"]),
    ],
)
def test_what_is_not_there_is_refused_with_what_there_is(axes: str, fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(AxesError) as caught:
        choose(stack(axes), Selection(**fields))
    said = f"{caught.value.message} {caught.value.hint}"
    assert all(word in said for word in words), said


def test_every_error_that_says_choose_names_the_option() -> None:
    flat = ModelInput(axes="CYX", channels=("dna",))
    movie = ModelInput(axes="TYX")
    for image, wanted, option in (
        (stack("ZYX"), flat, "--plane"),
        (stack("TYX"), flat, "--frame"),
        (stack("CYX"), flat, "--channel"),
        (stack("CYX"), ModelInput(axes="CYX", channels=("a", "b")), "--channel"),
        (stack("ZYX"), movie, "--input-axes TYX"),
    ):
        with pytest.raises(AxesError) as caught:
            match_channels(image, wanted)
        assert option in (caught.value.hint or "")
    with pytest.raises(AxesError) as caught:
        as_movie(stack("TCYX"))
    assert "--channel" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("axes", "letters", "transposed", "shape"),
    [
        ("ZYX", "TYX", (0, 1, 2), "TYX"),
        ("CZYX", "TCYX", (0, 1, 2, 3), "TCYX"),
        ("CZYX", "ZCYX", (1, 0, 2, 3), "CZYX"),
        ("ZYX", "YXZ", (2, 0, 1), "ZYX"),
        ("ZYX", "CYX", (0, 1, 2), "CYX"),
    ],
)
def test_input_axes_say_what_the_axes_mean(axes: str, letters: str, transposed: tuple[int, ...], shape: str) -> None:
    image = stack(axes)
    named = choose(image, Selection(input_axes=letters))
    assert named.axes == shape
    np.testing.assert_array_equal(named.read(), image.read().transpose(transposed))
    assert len(named.channels) == named.size("C")


def test_colour_samples_may_come_last_in_input_axes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (7, 9, 3), np.uint8)
    tifffile.imwrite(tmp_path / "rgb.tif", pixels, photometric="rgb")
    for letters in ("YXC", "CYX"):
        image = read_image(tmp_path / "rgb.tif", selection=Selection(input_axes=letters))
        assert image.channels == ("red", "green", "blue")
        np.testing.assert_array_equal(image.read(), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("given_size", "expected"),
    [
        ("0.25", {"Z": 2.0, "Y": 0.25, "X": 0.25}),
        ("0.25x0.5", {"Z": 2.0, "Y": 0.25, "X": 0.5}),
        ("3x.25x1e-1", {"Z": 3.0, "Y": 0.25, "X": 0.1}),
        ("none", None),
        ("None", None),
    ],
)
def test_a_pixel_size_overrides_the_file(given_size: str, expected: dict[str, float] | None) -> None:
    assert choose(stack("ZYX"), Selection(pixel_size=given_size)).pixel_size == expected
    assert choose(stack("YX"), Selection(pixel_size="3x0.25x0.5")).pixel_size == {"Y": 0.25, "X": 0.5}


def test_masks_follow_in_planes_and_frames_that_they_have_and_in_no_channel() -> None:
    masks = stack("ZYX")
    assert follow(masks, Selection(plane="2", channel=("DAPI",))).shape == (5, 6)
    assert follow(stack("YX"), Selection(plane="2", frame="1")).axes == "YX"
    assert follow(masks, Selection(plane="max")).axes == "ZYX"  # a projection of numbers is another question
    pages = replace(stack("ZYX"), guessed_axes=True)
    assert follow(pages, Selection(frame="1"), "YX").axes == "YX"
    assert follow(pages, Selection(frame="1"), "ZYX").axes == "ZYX"  # the pages of masks of a stack are its planes
    named = follow(stack("ZYX"), Selection(input_axes="TCYX", frame="1"))
    np.testing.assert_array_equal(named.read(), stack("ZYX").read()[1])
    with pytest.raises(AxesError, match="4 planes"):
        follow(masks, Selection(plane="9"))


def test_entries_are_named_and_come_one_at_a_time() -> None:
    image = stack("TZYX", lazy=True)
    found = list(entries_along(image, "TZ"))
    assert [place for place, _ in found] == [(t, z) for t in range(3) for z in range(4)]
    place, part = found[5]
    np.testing.assert_array_equal(part.read(), image.read()[place])
    assert part.source == "a.tif, frame 1, plane 1"


def test_nothing_chosen_changes_nothing() -> None:
    image = stack("TCZYX")
    assert choose(image, EVERYTHING) is image
    assert Selection(plane="each", frame="each").each == "TZ"
    assert EVERYTHING.each == ""
