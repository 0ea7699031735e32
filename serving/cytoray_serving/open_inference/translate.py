"""Converts tensors to a question, and an answer to tensors.

Inputs: ``image``, the bytes of a file or numbers; ``masks``, the same with integers; ``boxes`` (n, 4) or (n, 6), X
first. Numbers have the axes of the model, with or without channels: ``YX`` or ``CYX``, ``ZYX`` or ``CZYX``, for movies
``TYX`` or ``TCYX`` and ``TZYX`` or ``TCZYX``; a batch axis of length one may come first. The parameter ``axes`` names
other axes, such as ``ZYX`` for a model that takes a stack as channels. The parameter ``segmentation`` names a model
that finds the objects, ``timeout`` is in microseconds. The parameters ``channel`` (several as a JSON list), ``plane``,
``frame``, ``series``, ``input_axes`` and ``pixel_size`` choose a part of the image, see
:class:`cytoray_analysis.selection.Selection`; for an image of numbers ``input_axes`` are its ``axes``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import AxesError, RequestError
from cytoray_analysis.images import declared_size
from cytoray_analysis.images.axes import AXES, check_axes
from cytoray_analysis.selection import EACH, Selection, selection_of
from cytoray_serving.answers import answer_kind
from cytoray_serving.answers.arrays import FORM, Arrays, read_arrays
from cytoray_serving.messages import Answer, Count, Question, check_boxes, warnings_text
from cytoray_serving.open_inference.messages import InferenceRequest, InferenceResponse
from cytoray_serving.open_inference.metadata import model_outputs, object_axes
from cytoray_serving.open_inference.tensors import Tensor, tensor_of_array
from cytoray_serving.schema import ModelStatus

_INPUTS = ("image", "masks", "boxes")
_LONGEST_TIMEOUT = 2**53
_LONGEST_TEXT = 2**16  # characters of a parameter
_BOXES_AT_ONCE = 4096  # boxes that are converted at a time: as Python numbers they take many times as much memory


def asked_of(request: InferenceRequest, status: ModelStatus, count: Count) -> tuple[InferenceRequest, Question]:
    """Return the request without its inputs, and the question, whose bytes are counted.

    Raises
    ------
    RequestError, ImageError
        See :func:`question_of`.
    """
    question = question_of(request, status)
    count(question.size)
    return replace(request, inputs={}), question


def question_of(request: InferenceRequest, status: ModelStatus) -> Question:
    """Convert a request to a question to a model.

    Raises
    ------
    RequestError
        An input or output is unknown, or has a type or a shape that the model does not accept.
    ImageError
        The bytes are not an image file.
    """
    _require_known(request, status)
    image, masks, boxes = (request.inputs.get(name) for name in _INPUTS)
    if image is None:
        raise RequestError("expected the input image, got none", field="image", hint=f"inputs: {', '.join(_INPUTS)}")
    spatial = object_axes(status)
    selection = _selection(request.parameters)
    named: tuple[str, ...] | None = _named_axes(request.parameters)
    masked = spatial
    if image.datatype != "BYTES" and selection.input_axes is not None and named is None:
        image, axes = _ordered(image, selection.input_axes)
        named, selection = (axes,), selection.without("input_axes")
    if selection.each:
        masked = "".join(axis for axis in AXES if axis in spatial or axis in selection.each)
        named = named or (masked, _with_channels(masked))
    file = _file(image, named or (spatial, _with_channels(spatial)))
    return Question(
        image=file,
        accept=FORM.media_type,
        masks=None if masks is None else _file(_require_integers(masks), (spatial, masked)),
        boxes=None if boxes is None else _boxes(boxes),
        segmentation=_text(request.parameters, "segmentation"),
        megapixels=declared_size(file).pixels / 1e6,
        selection=selection,
    )


def deadline_of(request: InferenceRequest) -> float | None:
    """Return the timeout in seconds; None for no timeout.

    Raises
    ------
    RequestError
        The parameter ``timeout`` is not a number of microseconds.
    """
    timeout = request.parameters.get("timeout", 0)
    if type(timeout) is not int or not 0 <= timeout < _LONGEST_TIMEOUT:
        raise RequestError(f"expected timeout in microseconds, got {timeout!r}"[:200], field="timeout")
    return timeout / 1e6 if timeout else None


def response_of(answer: Answer, request: InferenceRequest) -> InferenceResponse:
    """Convert an answer in the form of arrays to the requested outputs.

    Raises
    ------
    RequestError
        The model was replaced in the meantime, and the new one has no such output.
    """
    found = {name: tensor_of_array(name, values) for name, values in _outputs(read_arrays(answer.body)).items()}
    names = [wanted.name for wanted in request.outputs] or list(found)
    missing = [name for name in names if name not in found]
    if missing:
        raise _unknown("output", missing[0], tuple(found))
    parameters: dict[str, Any] = {"digest": answer.digest, "kind": answer.kind, "objects": answer.objects}
    if answer.steps:
        parameters["steps"] = ", ".join(answer.steps)
    if answer.channels:
        parameters["channels"] = json.dumps([one.model_dump() for one in answer.channels])
    if answer.warnings:
        parameters["warnings"] = warnings_text(answer.warnings)
    parameters |= {f"seconds_{stage}": seconds for stage, seconds in answer.seconds.items()}
    return InferenceResponse(answer.name, answer.version, [found[name] for name in names], parameters)


def _outputs(arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Return the outputs of an answer, with the names of classes."""
    return arrays.arrays | answer_kind(arrays.about["kind"]).named(arrays.arrays, arrays.classes)


def _require_known(request: InferenceRequest, status: ModelStatus) -> None:
    for name in request.inputs:
        if name not in _INPUTS:
            raise _unknown("input", name, _INPUTS)
    outputs = tuple(output.name for output in model_outputs(status))
    for wanted in request.outputs:
        if wanted.name not in outputs:
            raise _unknown("output", wanted.name, outputs)


def _unknown(what: str, name: str, known: tuple[str, ...]) -> RequestError:
    return RequestError(
        f"expected one of the {what}s {', '.join(known)}, got {name[:80]!r}",
        field=f"{what}s",
        hint="the metadata of the model lists them",
    )


def _file(tensor: Tensor, candidates: tuple[str, ...]) -> bytes:
    """Return the file in a tensor, or an uncompressed TIFF of its numbers in the matching axes."""
    values = tensor.values
    if tensor.datatype == "BYTES":
        if values.size != 1:
            raise RequestError(
                f"expected the bytes of one file, got {values.size}", field=tensor.name, hint="send the shape [1]"
            )
        return bytes(values.flat[0])
    longest = max(map(len, candidates))
    if values.ndim == longest + 1 and values.shape[0] == 1:
        values = values[0]
    axes = next((axes for axes in candidates if len(axes) == values.ndim), None)
    if axes is None or values.size == 0:
        raise RequestError(
            f"expected {tensor.name} in the axes {' or '.join(candidates)}, got the shape {list(values.shape)}",
            field=tensor.name,
            hint="use the parameter axes for other axes, such as ZYX",
        )
    return _tiff(values, axes)


def _tiff(values: NDArray[Any], axes: str) -> bytes:
    """Write numbers so that :func:`cytoray_analysis.images.read_image` returns the same pixels in the same axes."""
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        values.view(np.uint8) if values.dtype.kind == "b" else values,
        photometric="minisblack",
        metadata={"axes": axes},
        truncate=True,  # one header, however many planes
    )
    return buffer.getvalue()


def _selection(parameters: Mapping[str, Any]) -> Selection:
    """Parse the selection; several channels are a list, as JSON text if parameters cannot be lists."""
    given = {name: parameters[name] for name in Selection.model_fields if parameters.get(name) is not None}
    for name in given:
        _require_short(parameters, name)
    channel = given.get("channel")
    if isinstance(channel, str) and channel.lstrip().startswith("["):
        try:
            given["channel"] = json.loads(channel)
        except (ValueError, RecursionError) as error:
            raise RequestError(
                f"expected channel as a name, or several as a JSON list, got {channel[:80]!r}",
                field="channel",
                hint='give for example ["DAPI", "GFP"]',
            ) from error
    chosen = selection_of(given)
    if chosen.series == EACH:
        raise RequestError(
            "expected one series, got each: a request returns one answer", field="series", hint="name one series"
        )
    return chosen


def _ordered(tensor: Tensor, letters: str) -> tuple[Tensor, str]:
    """Return numbers with their axes in the standard order, and the letters of the axes."""
    if tensor.values.ndim != len(letters):
        raise RequestError(
            f"expected {tensor.name} with {len(letters)} axes ({letters}), got the shape {list(tensor.values.shape)}",
            field="input_axes",
            hint="give one letter for each axis of the tensor",
        )
    axes = "".join(axis for axis in AXES if axis in letters)
    values = tensor.values.transpose([letters.index(axis) for axis in axes])
    return replace(tensor, values=np.ascontiguousarray(values)), axes


def _named_axes(parameters: Mapping[str, Any]) -> tuple[str] | None:
    axes = _text(parameters, "axes")
    if axes is None:
        return None
    try:
        check_axes(axes)
    except AxesError as error:
        raise RequestError(error.message[:200], field="axes", hint=error.hint) from error
    return (axes,)


def _with_channels(axes: str) -> str:
    return "".join(axis for axis in AXES if axis in axes or axis == "C")


def _require_integers(tensor: Tensor) -> Tensor:
    if tensor.values.dtype.kind == "f":
        raise RequestError(
            f"expected {tensor.name} as integers or as the bytes of a file, got {tensor.datatype}", field=tensor.name
        )
    return tensor


def _boxes(tensor: Tensor) -> str:
    values = tensor.values
    if values.ndim == 3 and len(values) == 1:
        values = values[0]
    if values.dtype.kind not in "uif" or values.ndim != 2 or values.shape[1] not in (4, 6):
        raise RequestError(
            f"expected boxes as numbers of shape [n, 4] or [n, 6], got {tensor.datatype} of {list(values.shape)}",
            field="boxes",
            hint="xmin, ymin, xmax, ymax in pixels; for volumes xmin, ymin, zmin, xmax, ymax, zmax",
        )
    parts: list[str] = []
    length = 2
    for start in range(0, len(values), _BOXES_AT_ONCE):
        rows = values[start : start + _BOXES_AT_ONCE].astype(np.float64).tolist()
        parts.append(json.dumps(rows, separators=(",", ":"))[1:-1])
        length += len(parts[-1]) + 1
        check_boxes(length)
    return f"[{','.join(parts)}]"


def _require_short(parameters: Mapping[str, Any], name: str) -> None:
    value = parameters.get(name)
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        raise RequestError(
            f"expected at most {_LONGEST_TEXT} characters for the parameter {name}, got {len(value)}", field=name
        )


def _text(parameters: Mapping[str, Any], name: str) -> str | None:
    value = parameters.get(name)
    _require_short(parameters, name)
    if value is not None and not isinstance(value, str):
        raise RequestError(f"expected the parameter {name} to be text, got {type(value).__name__}", field=name)
    return value
