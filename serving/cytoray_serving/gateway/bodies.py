"""The body of a request: an image, a form with an image and other fields, or JSON with the URIs of files."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from cytoray_analysis.errors import ImageTooLargeError, RequestError
from cytoray_analysis.selection import EACH, FORMS, Selection, merge, selection_error, selection_of
from cytoray_serving.messages import LARGEST_BOXES, Question
from cytoray_serving.schema import UriQuestion

_BINARY = {"type": "string", "format": "binary"}
_CHOICES = tuple(Selection.model_fields)
_FIELDS = ("image", "masks", "boxes", "segmentation", *_CHOICES)

# Query parameters that choose the part of the image.
PARAMETERS: list[dict[str, Any]] = [
    {
        "name": name,
        "in": "query",
        "required": False,
        "description": schema["description"],
        "schema": {"type": "array", "items": {"type": "string"}} if name == "channel" else {"type": "string"},
    }
    for name, schema in Selection.model_json_schema()["properties"].items()
]
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "description": "An image file: TIFF, OME-TIFF, PNG or JPEG; detected by its content. A movie is one TIFF with axes "
    "TYX or TZYX. A form also gives the positions of the objects, which are optional for classification and required "
    "for tracking: masks, boxes (cells only), or a segmentation model that finds them.",
    "content": {
        "application/octet-stream": {"schema": _BINARY},
        "image/*": {"schema": _BINARY},
        "application/json": {"schema": {"$ref": "#/components/schemas/UriQuestion"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {
                    "image": {**_BINARY, "description": "The image file."},
                    "masks": {
                        **_BINARY,
                        "description": "A label image (TIFF or PNG) of the same size; for a movie one TIFF.",
                    },
                    "boxes": {
                        "type": "string",
                        "description": "JSON: [[xmin, ymin, xmax, ymax], …] in pixels; of volumes "
                        "[xmin, ymin, zmin, xmax, ymax, zmax].",
                        "example": "[[10, 20, 42, 50]]",
                    },
                    "segmentation": {
                        "type": "string",
                        "description": "A registered model that finds the objects.",
                        "example": "nuclei@champion",
                    },
                    **Selection.model_json_schema()["properties"],
                },
            }
        },
    },
}


async def read_question(request: Request, accept: str | None) -> Question | UriQuestion:
    """Parse a request; :mod:`cytoray_serving.front.entrance` limits its body.

    Parameters
    ----------
    accept
        The ``Accept`` header, which chooses the form of the answer.

    Raises
    ------
    RequestError
        The body has no image, or is malformed.
    """
    chosen = _chosen_in_address(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        asked = _uri_question(await request.body())
        if asked.format is not None and asked.output is None:
            raise RequestError(
                "expected no format without an output: the header Accept chooses the format of the response",
                field="format",
                hint="remove format, or add an output",
            )
        _require_one_series(selection := merge(chosen, asked.selection), job=asked.output is not None)
        return asked.model_copy(update=dict(selection))
    if kind == "multipart/form-data":
        question = await _read_form(request, accept)
    elif kind.startswith("image/") or kind in ("", "application/octet-stream", "application/x-www-form-urlencoded"):
        # The default content type of curl --data-binary is x-www-form-urlencoded.
        question = Question(await request.body(), accept)
    else:
        raise RequestError(
            f"expected an image, multipart/form-data or application/json, got the content type {kind!r}",
            field="Content-Type",
            hint="send the bytes of the image file as application/octet-stream",
        )
    if not question.image:
        raise RequestError("expected an image in the request body, got none", field="body")
    _require_one_series(selection := merge(chosen, question.selection), job=False)
    return replace(question, selection=selection)


def _chosen_in_address(request: Request) -> Selection:
    """Parse the query parameters that choose the part of the image."""
    parameters = request.query_params
    for name in parameters:
        if name not in _CHOICES:
            near = difflib.get_close_matches(name.replace("-", "_"), _CHOICES, 1)
            raise RequestError(
                f"expected one of the parameters {', '.join(_CHOICES)}, got {name[:80]!r}",
                field=name[:80],
                hint=f"did you mean {near[0]}?" if near else "remove it",
            )
    return _selection({name: parameters.getlist(name) for name in dict.fromkeys(parameters)})


def _selection(given: Mapping[str, Sequence[Any]]) -> Selection:
    """Build a selection from fields that may be given several times, such as channels."""
    for name, values in given.items():
        if name != "channel" and len(values) > 1:
            raise RequestError(
                f"expected {name} once, got {len(values)} values", field=name, hint=f"{name} takes {FORMS[name]}"
            )
    return selection_of({name: list(values) if name == "channel" else values[0] for name, values in given.items()})


def _require_one_series(selection: Selection, *, job: bool) -> None:
    if selection.series == EACH and not job:
        raise RequestError(
            "expected one series, got each: a request returns one answer",
            field="series",
            hint="name one series, or submit a job for all: POST /models/{model}/jobs",
        )


def _uri_question(body: bytes) -> UriQuestion:
    try:
        return UriQuestion.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] and first["loc"][0] in _CHOICES:
            raise selection_error(error) from error
        raise RequestError(
            f"expected a JSON object with the URI of an image: {first['msg']}",
            field=".".join(str(part) for part in first["loc"]) or "body",
            hint='such as {"image": "s3://bucket/cells.tif"}',
        ) from error


async def _read_form(request: Request, accept: str | None) -> Question:
    try:
        form = await MultiPartParser(request.headers, request.stream(), max_files=4, max_fields=128).parse()
    except MultiPartException as error:
        raise RequestError(f"the form in the body is malformed: {error.message}", field="body") from error
    try:
        return await _question_of_form(form, accept)
    finally:
        await form.close()


async def _question_of_form(form: FormData, accept: str | None) -> Question:
    parts = form.multi_items()
    names = [name for name, _ in parts]
    images = [value for name, value in parts if isinstance(value, UploadFile) and name not in _FIELDS[1:]]
    # The field of the image may have any name that has no other meaning, but only if no image is given as text.
    if len(images) != 1 or isinstance(form.get("image"), str):
        raise RequestError(
            f"expected a form with one file for the image, got {', '.join(names)[:200] or 'nothing'}",
            field="image",
            hint="send one image per request, as the file of the field image; masks are another field",
        )
    unknown = [
        name
        for name, value in parts
        if name not in _FIELDS
        and (not isinstance(value, UploadFile) or difflib.get_close_matches(name, _FIELDS[1:], 1, 0.8))
    ]
    twice = [name for name in _FIELDS if names.count(name) > 1 and name != "channel"]
    if unknown or twice:
        raise RequestError(
            f"expected the fields {', '.join(_FIELDS)}, each once, got {', '.join(names)}",
            field=(unknown or twice)[0],
            hint="remove the others",
        )
    masks = form.get("masks")
    if isinstance(masks, str):
        raise RequestError("expected masks to be a file, got text", field="masks", hint="curl: -F masks=@masks.tif")
    return Question(
        image=await images[0].read(),
        accept=accept,
        masks=None if masks is None else await masks.read(),
        boxes=await _text(form.get("boxes"), "boxes"),
        segmentation=await _text(form.get("segmentation"), "segmentation"),
        selection=_selection(
            {name: [await _text(value, name) for value in form.getlist(name)] for name in _CHOICES if name in names}
        ),
    )


async def _text(value: UploadFile | str | None, name: str) -> str | None:
    """Return a field of text, which may be sent as a file."""
    if not isinstance(value, UploadFile):
        return value
    if (value.size or 0) > LARGEST_BOXES:
        raise ImageTooLargeError(
            f"expected at most {LARGEST_BOXES} bytes of text as {name}, got {value.size}",
            field=name,
            hint="send masks instead of boxes, or only a part of the image",
        )
    try:
        return (await value.read()).decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"expected {name} to be text in UTF-8: {error}", field=name) from error
