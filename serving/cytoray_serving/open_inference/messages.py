"""The bodies of inference requests and responses over REST: JSON, alone or with binary tensors after it.

With the binary tensor extension a body begins with JSON, whose length is in the header
``Inference-Header-Content-Length``. The bytes of the tensors with the parameter ``binary_data_size`` follow in order.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from cytoray_analysis.errors import CytorayError, ImageTooLargeError, RequestError
from cytoray_serving.open_inference.tensors import MOST_AXES, Tensor, array_of_list, array_of_raw, raw_of_array

LARGEST_JSON = 2**24  # bytes; as Python objects they take ten times as much memory
_MOST_LISTED = 2**24  # values
_CODINGS = {"gzip": 31, "deflate": 15}  # zlib's name for each: window size and wrapper
_FASTEST = 1

Length = Annotated[int, Field(ge=0, lt=2**63)]


class _Open(BaseModel):
    """Ignores fields of other versions of the protocol."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class RequestInput(_Open):
    """A tensor of a request."""

    name: str
    shape: list[Length] = Field(max_length=MOST_AXES)
    datatype: str = Field(examples=["UINT8"])
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any] | None = Field(default=None, description="The values, flat or nested; absent for binary data.")


class RequestOutput(_Open):
    """A requested tensor."""

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class RequestBody(_Open):
    """An inference request."""

    id: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: list[RequestInput]
    outputs: list[RequestOutput] = Field(default_factory=list, description="Empty for all.")


class ResponseOutput(_Open):
    """A tensor of a response."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = Field(default=None, description="Row by row; absent for binary data.")


class ResponseBody(_Open):
    """An inference response."""

    model_name: str
    model_version: str | None = Field(default=None, description="Absent for a bundle folder.")
    id: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    outputs: list[ResponseOutput]


@dataclass(frozen=True)
class Wanted:
    """A requested output, and whether it is sent as bytes."""

    name: str
    binary: bool


@dataclass(frozen=True, eq=False)
class InferenceRequest:
    """A request over REST or gRPC.

    Attributes
    ----------
    inputs
        Tensors by name.
    outputs
        Requested outputs; empty for all.
    binary
        Whether outputs are sent as bytes by default.
    parameters
        Parameters in addition to the tensors.
    id
        Returned in the response.
    """

    inputs: Mapping[str, Tensor]
    outputs: tuple[Wanted, ...] = ()
    binary: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""

    def is_binary(self, name: str) -> bool:
        """Whether an output is sent as bytes."""
        return next((wanted.binary for wanted in self.outputs if wanted.name == name), self.binary)


@dataclass(frozen=True, eq=False)
class InferenceResponse:
    """A response; with the attributes of :class:`ResponseBody`."""

    model: str
    version: str | None
    outputs: Sequence[Tensor]
    parameters: Mapping[str, Any] = field(default_factory=dict)


def parse_request(body: bytes, header_length: str | None) -> InferenceRequest:
    """Parse the body of an inference request.

    Parameters
    ----------
    body
        The decompressed body.
    header_length
        The header ``Inference-Header-Content-Length``; None if the whole body is JSON.

    Raises
    ------
    RequestError
        The body is malformed.
    ImageTooLargeError
        The JSON is too long; large tensors must be sent as binary data.
    """
    length = len(body) if header_length is None else _length_of(header_length, len(body))
    if length > LARGEST_JSON:
        raise ImageTooLargeError(
            f"expected at most {LARGEST_JSON} bytes of JSON, got {length}",
            field="body",
            hint="send the tensors as binary data (set_data_from_numpy with binary_data=True)",
        )
    try:
        request = RequestBody.model_validate_json(body[:length])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise RequestError(f"expected an inference request: {first['msg']} at {place}", field=place) from error
    inputs: dict[str, Tensor] = {}
    rest = memoryview(body)[length:]
    for described in request.inputs:
        if described.name in inputs:
            raise RequestError(f"expected each input once, got {described.name!r} twice", field="inputs")
        values, rest = _values(described, rest)
        inputs[described.name] = Tensor(described.name, described.datatype, values, described.parameters)
    if len(rest):
        raise RequestError(
            f"expected the binary data to end with the last input, got {len(rest)} more bytes", field="body"
        )
    binary = _flag(request.parameters, "binary_data_output", False)
    outputs = tuple(Wanted(one.name, _flag(one.parameters, "binary_data", binary)) for one in request.outputs)
    return InferenceRequest(inputs, outputs, binary, request.parameters, request.id)


def write_response(response: InferenceResponse, request: InferenceRequest) -> tuple[bytes, int | None]:
    """Write the body of an inference response.

    Returns
    -------
    body, header_length
        The length of the JSON; None if it is the whole body.

    Raises
    ------
    RequestError
        An output is too large for JSON.
    """
    described: list[dict[str, Any]] = []
    parts: list[bytes | memoryview] = []
    for output in response.outputs:
        one: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.values.shape)}
        if request.is_binary(output.name):
            parts.append(raw_of_array(output.values))
            one["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            one["data"] = _listed(output)
        described.append(one)
    body: dict[str, Any] = {"model_name": response.model}
    if response.version is not None:
        body["model_version"] = response.version
    if request.id:
        body["id"] = request.id
    # JSON has no NaN; byte strings are text there.
    head = to_json(body | {"parameters": dict(response.parameters), "outputs": described}, inf_nan_mode="null")
    return b"".join((head, *parts)), len(head) if parts else None


def compress(body: bytes, accepted: str | None) -> tuple[bytes, str | None]:
    """Compress a body with the first known coding of an ``Accept-Encoding`` header; None if it has none."""
    for part in (accepted or "").lower().split(","):
        name, _, weight = (word.strip() for word in part.partition(";"))
        if name in _CODINGS and weight.replace(" ", "").rstrip("0.") != "q=":
            encoder = zlib.compressobj(_FASTEST, zlib.DEFLATED, _CODINGS[name])
            return encoder.compress(body) + encoder.flush(), name
    return body, None


def _length_of(header: str, most: int) -> int:
    if not (header.isascii() and header.isdigit() and len(header) < 20 and int(header) <= most):
        raise RequestError(
            f"expected the length of the JSON, at most {most} bytes, got {header[:20]!r}",
            field="Inference-Header-Content-Length",
        )
    return int(header)


def _values(described: RequestInput, rest: memoryview) -> tuple[Any, memoryview]:
    """Return the values of an input, and the binary data after it."""
    name = described.name
    size = described.parameters.get("binary_data_size")
    if (size is None) == (described.data is None):
        raise RequestError(
            f"expected data or the parameter binary_data_size for the input {name!r}",
            field=name,
            hint="tensors in shared memory are not supported",
        )
    if described.data is not None:
        return array_of_list(name, described.datatype, described.shape, described.data), rest
    if type(size) is not int or not 0 <= size <= len(rest):
        raise RequestError(
            f"expected binary_data_size of at most the remaining {len(rest)} bytes, got {size!r}"[:200],
            field=name,
        )
    return array_of_raw(name, described.datatype, described.shape, rest[:size]), rest[size:]


def _flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(f"expected {name} to be true or false, got {value!r}"[:200], field=name)
    return value


def _listed(output: Tensor) -> list[Any]:
    if output.values.size > _MOST_LISTED:
        raise RequestError(
            f"expected at most {_MOST_LISTED} values for an output in JSON, got {output.values.size} for {output.name}",
            field="outputs",
            hint="request binary data (the parameter binary_data_output)",
        )
    values: list[Any] = output.values.ravel().tolist()
    return values


def error_text(error: CytorayError) -> str:
    """Return an error as one line: the protocol has no other field for its hint."""
    return error.message if error.hint is None else f"{error.message} ({error.hint})"
