"""Tensors and bodies, against the functions with which tritonclient itself writes and reads them."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

from cytoray_analysis.errors import ImageTooLargeError, RequestError
from cytoray_serving.open_inference.messages import (
    InferenceRequest,
    InferenceResponse,
    compress,
    parse_request,
    write_response,
)
from cytoray_serving.open_inference.tensors import (
    DATATYPES,
    array_of_list,
    array_of_raw,
    raw_of_array,
    tensor_of_array,
)

NUMBERS = ("?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8")
SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)
LIMIT = 2**20


@st.composite
def strings(draw: st.DrawFn) -> NDArray[Any]:
    found = draw(st.lists(st.binary(max_size=9).map(lambda text: text.rstrip(b"\0") + b"."), min_size=1, max_size=5))
    values = np.empty(len(found), object)
    values[:] = found
    return values


numbers = st.sampled_from((*NUMBERS, "f2")).flatmap(lambda dtype: arrays.arrays(dtype, SHAPES))
finite = st.sampled_from(NUMBERS).flatmap(
    lambda dtype: arrays.arrays(
        dtype, SHAPES, elements={"allow_nan": False, "allow_infinity": False} if dtype[0] == "f" else None
    )
)


@given(st.lists(numbers | strings(), max_size=4))
def test_binary_tensors_of_tritonclient_are_read_as_they_were(sent: list[NDArray[Any]]) -> None:
    inputs = [triton.InferInput(str(place), one.shape, np_to_triton_dtype(one.dtype)) for place, one in enumerate(sent)]
    for one, values in zip(inputs, sent, strict=True):
        one.set_data_from_numpy(values)
    body, length = triton.InferenceServerClient.generate_request_body(inputs, request_id="7")
    request = parse_request(body, None if length is None else str(length))
    assert (request.id, request.binary) == ("7", True)
    for place, values in enumerate(sent):
        found = request.inputs[str(place)].values
        assert found.shape == values.shape
        np.testing.assert_array_equal(found, values)


@given(finite)
def test_listed_tensors_of_tritonclient_are_read_as_they_were(values: NDArray[Any]) -> None:
    one = triton.InferInput("image", values.shape, np_to_triton_dtype(values.dtype))
    one.set_data_from_numpy(values, binary_data=False)
    body, length = triton.InferenceServerClient.generate_request_body([one])
    found = parse_request(body, length).inputs["image"].values
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


@given(st.lists(finite | strings(), min_size=1, max_size=4), st.booleans())
def test_responses_are_read_by_tritonclient_as_they_were(sent: list[NDArray[Any]], binary: bool) -> None:
    if not binary:  # text is what JSON has for byte strings
        sent = [one for one in sent if one.dtype != object or all(value.isascii() for value in one)]
    outputs = [tensor_of_array(str(place), values) for place, values in enumerate(sent)]
    response = InferenceResponse("nuclei", None, outputs, {"objects": 3})
    body, length = write_response(response, InferenceRequest({}, binary=binary))
    answer = triton.InferenceServerClient.parse_response_body(body, header_length=length)
    assert answer.get_response()["parameters"] == {"objects": 3}
    for place, values in enumerate(sent):
        found = answer.as_numpy(str(place))
        if not binary and values.dtype == object:
            found = np.array([value.encode() for value in found.ravel()], object).reshape(found.shape)
        assert found.shape == values.shape
        np.testing.assert_array_equal(found, values)


@given(arrays.arrays("u2", SHAPES))
def test_bf16_is_the_upper_half_of_a_float(upper: NDArray[np.uint16]) -> None:
    found = array_of_raw("image", "BF16", upper.shape, upper.tobytes())
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32) >> 16, upper)


@given(numbers | strings())
def test_raw_bytes_are_read_as_they_were_written(values: NDArray[Any]) -> None:
    one = tensor_of_array("image", values)
    np.testing.assert_array_equal(array_of_raw("image", one.datatype, values.shape, raw_of_array(values)), values)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner),
    max_leaves=9,
)


@pytest.mark.slow
@given(
    st.sampled_from(DATATYPES) | st.text(max_size=4),
    st.lists(st.integers(-1, 2**64), max_size=10) | SHAPES,
    st.binary(max_size=64),
    st.lists(anything, max_size=5),
)
@example("UINT8", [0, 2**63], b"", [])
@settings(max_examples=300)
def test_any_values_are_read_or_refused(datatype: str, shape: list[int], raw: bytes, listed: list[Any]) -> None:
    with contextlib.suppress(RequestError):
        assert array_of_raw("image", datatype, shape, raw).shape == tuple(shape)
    with contextlib.suppress(RequestError):
        assert array_of_list("image", datatype, shape, listed).shape == tuple(shape)


@pytest.mark.slow
@given(st.data())
@settings(max_examples=300)
def test_any_damage_to_a_body_is_read_or_refused(data: st.DataObject) -> None:
    one = triton.InferInput("image", [3, 4], "UINT16")
    one.set_data_from_numpy(np.arange(12, dtype=np.uint16).reshape(3, 4))
    other = triton.InferInput("masks", [2], "BYTES")
    other.set_data_from_numpy(np.array([b"some", b"bytes"], object))
    whole, length = triton.InferenceServerClient.generate_request_body([one, other])
    body = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(body)))
    header = data.draw(st.none() | st.just(str(length)) | st.text(max_size=4) | st.integers().map(str))
    with contextlib.suppress(RequestError, ImageTooLargeError):
        parse_request(bytes(body[:end]), header)


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (None, None),
        ("", None),
        ("*", None),
        ("br", None),
        ("gzip;q=0", None),
        ("gzip; q=0.0, deflate", "deflate"),
        ("gzip;q=0.5", "gzip"),
        ("br, deflate, gzip", "deflate"),
    ],
)
def test_the_first_known_coding_that_is_accepted_is_taken(accepted: str | None, coding: str | None) -> None:
    assert compress(b"body", accepted)[1] == coding


@pytest.mark.slow
def test_json_has_a_limit_that_binary_data_has_not() -> None:
    one = triton.InferInput("image", [3000, 3000], "UINT8")
    one.set_data_from_numpy(np.zeros((3000, 3000), np.uint8))
    body, length = triton.InferenceServerClient.generate_request_body([one])
    assert parse_request(body, str(length)).inputs["image"].values.shape == (3000, 3000)
    one.set_data_from_numpy(np.zeros((3000, 3000), np.uint8), binary_data=False)
    body, _ = triton.InferenceServerClient.generate_request_body([one])
    with pytest.raises(ImageTooLargeError, match="JSON"):
        parse_request(body, None)
