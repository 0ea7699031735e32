from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from cytoray_analysis.errors import ImageTooLargeError, RequestError
from cytoray_analysis.images import read_image
from cytoray_serving.open_inference.messages import InferenceRequest
from cytoray_serving.open_inference.tensors import tensor_of_array
from cytoray_serving.open_inference.translate import deadline_of, question_of
from cytoray_serving.schema import ModelStatus

DTYPES = st.sampled_from(["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"])
STATUS = ModelStatus(
    name="cells",
    version=None,
    digest="0" * 64,
    reference="cells",
    task="classification",
    kind="class",
    media_types=[],
    axes="CYX",
    channels=["grey"],
    grey_as_rgb=False,
    pixel_size=None,
    loaded="",
    registry="fixed",
)


def status(axes: str) -> ModelStatus:
    return STATUS.model_copy(update={"axes": axes})


def asking(parameters: dict[str, Any] | None = None, **inputs: NDArray[Any]) -> InferenceRequest:
    tensors = {name: tensor_of_array(name, values) for name, values in inputs.items()}
    return InferenceRequest(tensors, parameters=parameters or {})


@pytest.mark.slow
@given(
    st.sampled_from(
        [
            ("CYX", "YX"),
            ("CYX", "CYX"),
            ("CZYX", "ZYX"),
            ("CZYX", "CZYX"),
            ("TYX", "TYX"),
            ("TYX", "TCYX"),
            ("TZYX", "TZYX"),
            ("TZYX", "TCZYX"),
        ]
    ),
    st.booleans(),
    st.data(),
)
def test_numbers_become_a_file_with_the_same_pixels_and_axes(
    model_and_axes: tuple[str, str], batched: bool, data: st.DataObject
) -> None:
    model, axes = model_and_axes
    shape = data.draw(st.tuples(*[st.integers(1, 5)] * len(axes)))
    pixels = data.draw(arrays.arrays(data.draw(DTYPES), shape, elements={"min_value": 0, "max_value": 100}))
    batched = batched and "C" in axes  # without channels the axis in front is taken for them
    question = question_of(asking(image=pixels[np.newaxis] if batched else pixels), status(model))
    image = read_image(question.image)
    kept = "".join(axis for axis, length in zip(axes, shape, strict=True) if length > 1 or axis in "YX")
    assert image.axes == kept
    assert image.dtype == pixels.dtype
    np.testing.assert_array_equal(image.read(), pixels.reshape(image.shape))


def test_a_batch_of_one_is_not_mistaken_for_a_channel() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4)
    image = read_image(question_of(asking(image=pixels), status("CYX")).image)
    assert (image.axes, image.shape) == ("CYX", (2, 3, 4))
    with pytest.raises(RequestError, match="YX or CYX"):
        question_of(asking(image=np.repeat(pixels, 2, axis=0)), status("CYX"))


def test_many_tiny_planes_make_a_small_file() -> None:
    question = question_of(asking(image=np.zeros((100_000, 1, 1), np.uint8)), status("TYX"))
    assert len(question.image) < 110_000


def test_masks_are_integers_in_the_spatial_axes() -> None:
    image, masks = np.zeros((3, 4), np.float32), np.arange(12, dtype=np.int64).reshape(3, 4)
    question = question_of(asking(image=image, masks=masks[np.newaxis]), status("CYX"))
    assert question.masks is not None
    np.testing.assert_array_equal(read_image(question.masks).read(), masks)
    flags = question_of(asking(image=image, masks=masks > 3), status("CYX")).masks
    assert flags is not None
    np.testing.assert_array_equal(read_image(flags).read(), masks > 3)
    with pytest.raises(RequestError, match="integers"):
        question_of(asking(image=image, masks=masks.astype(np.float32)), status("CYX"))
    with pytest.raises(RequestError, match="axes YX"):
        question_of(asking(image=image, masks=np.stack([masks, masks])), status("CYX"))


@pytest.mark.slow
def test_boxes_take_little_more_memory_than_their_text() -> None:
    request = asking(image=np.zeros((8, 8), np.uint8), boxes=np.zeros((2**17, 4), np.uint8))
    tracemalloc.start()
    try:
        boxes = question_of(request, status("CYX")).boxes
        _, highest = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert boxes is not None
    assert json.loads(boxes) == [[0, 0, 0, 0]] * 2**17
    assert highest < 4 * len(boxes)


@pytest.mark.slow
@pytest.mark.parametrize("boxes", [np.zeros((2**20, 4), np.uint8), np.full((2**18, 4), np.pi)], ids=["zeros", "pi"])
def test_more_boxes_than_a_question_may_hold_are_refused(boxes: NDArray[Any]) -> None:
    with pytest.raises(ImageTooLargeError, match="characters of boxes") as caught:
        question_of(asking(image=np.zeros((8, 8), np.uint8), boxes=boxes), status("CYX"))
    assert caught.value.field == "boxes"


@pytest.mark.parametrize("shape", [(2**20, 0), (4, 5), (0, 0)])
def test_boxes_have_four_or_six_sides(shape: tuple[int, int]) -> None:
    with pytest.raises(RequestError, match=r"\[n, 4\] or \[n, 6\]"):
        question_of(asking(image=np.zeros((8, 8), np.uint8), boxes=np.zeros(shape, np.uint8)), status("CYX"))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32])
def test_boxes_become_rows(dtype: type) -> None:
    boxes: NDArray[Any] = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], dtype)
    image = np.zeros((9, 9), np.uint8)
    for given_boxes in (boxes, boxes[np.newaxis]):
        question = question_of(asking(image=image, boxes=given_boxes), status("CYX"))
        assert json.loads(question.boxes or "") == boxes.tolist()
    with pytest.raises(RequestError, match=r"\[n, 4\]"):
        question_of(asking(image=image, boxes=boxes[0]), status("CYX"))


def test_parameters_name_a_segmentation_axes_and_a_time() -> None:
    image = np.zeros((5, 9, 9), np.uint8)
    request = asking({"segmentation": "nuclei@champion", "axes": "ZYX", "timeout": 1_500_000}, image=image)
    question = question_of(request, status("CYX"))
    assert question.segmentation == "nuclei@champion"
    assert read_image(question.image).axes == "ZYX"
    assert deadline_of(request) == 1.5
    assert deadline_of(replace(request, parameters={})) is None
    for wrong in ("soon", -1, True, 1.5, 2**80):
        with pytest.raises(RequestError, match="microseconds"):
            deadline_of(replace(request, parameters={"timeout": wrong}))
