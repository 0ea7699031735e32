"""The files of a question that come by URI, read within limits, as the bytes that a replica takes."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

from cytoray_analysis.answer_warnings import Warnings, join_warnings
from cytoray_analysis.errors import ImageTooLargeError, RequestError
from cytoray_analysis.images import Limits, write_image
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_serving.exchange import Question
from cytoray_serving.jobs.request import JobRequest
from cytoray_serving.places import Place, place
from cytoray_serving.schema import UriQuestion
from cytoray_serving.service_config import ServiceConfig


def fetch_question(asked: UriQuestion, accept: str | None, config: ServiceConfig) -> Question:
    """Read the files that a question names.

    Parameters
    ----------
    accept
        The header that chooses the answer's form.
    config
        Where files may lie, and how large they may be: as large as bodies.

    Raises
    ------
    ForbiddenError, MissingFileError, ImageError, PlatformError
        A file may not be read, is not there, is no image, or its store does not answer.
    """
    allowed = config.allowed.model_copy(update={"largest_file": config.limits.body_megabytes * 2**20})
    largest_image = config.largest_image
    image = place(asked.image, allowed, field="image")
    masks = None if asked.masks is None else place(asked.masks, allowed, field="masks")
    body, warnings, left = _chosen_bytes(image, largest_image, asked.selection)
    objects, more = (None, ()) if masks is None else _bytes(masks, largest_image, labels=True)
    return Question(
        image=body,
        accept=accept,
        masks=objects,
        boxes=None if asked.boxes is None else json.dumps(asked.boxes),
        segmentation=asked.segmentation,
        selection=left,
        warnings=join_warnings(warnings, more),
    )


def job_of(asked: UriQuestion) -> JobRequest:
    """Return a question that names an output as the job that it becomes.

    Raises
    ------
    RequestError
        It tells boxes, which jobs take as a file.
    """
    if asked.boxes is not None:
        raise RequestError(
            "expected no boxes beside an output, got some",
            field="boxes",
            hint="send POST /models/{model}/jobs with the URI of a CSV of boxes",
        )
    if asked.output is None:
        raise RequestError("expected an output, got none", field="output")
    return JobRequest(
        input=asked.image,
        output=asked.output,
        format=asked.format,
        masks=asked.masks,
        segmentation=asked.segmentation,
        **asked.given(),
    )


def _chosen_bytes(file: Place, largest_image: int, selection: Selection) -> tuple[bytes, Warnings, Selection]:
    """Return an image file, its warnings, and what is left to be chosen: of an OME-Zarr one series, plane or frame."""
    if not file.is_zarr():
        return file.read_bytes(), (), selection
    here = selection.without("channel", "pixel_size", *("plane" if axis == "Z" else "frame" for axis in selection.each))
    return *_bytes(file, largest_image, here), selection.without(*here.given())


def _bytes(
    file: Place, largest_image: int, selection: Selection = EVERYTHING, *, labels: bool = False
) -> tuple[bytes, Warnings]:
    """Return an image file as it is; an OME-Zarr, which is a folder, as an OME-TIFF, with what it cannot say itself."""
    if not file.is_zarr():
        return file.read_bytes(), ()
    image = file.open_image(Limits(), selection, labels=labels)
    pixels = math.prod(length for axis, length in zip(image.axes, image.shape, strict=True) if axis != "C")
    if pixels > largest_image:
        raise ImageTooLargeError(
            f"{file.uri} holds {pixels} pixels, more than the {largest_image} that are answered at once",
            field="image",
            hint="name an output, and the request becomes a job that answers tile by tile",
        )
    size, most = math.prod(image.shape) * image.dtype.itemsize, file.allowed.largest_file
    if size > most:
        raise ImageTooLargeError(
            f"{file.uri} holds {size} bytes of pixels, more than the {most} of a request",
            field="image",
            hint="choose channels, planes or frames, or name an output, and the request becomes a job",
        )
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        write_image(Path(folder) / "image.ome.tif", image)
        return (Path(folder) / "image.ome.tif").read_bytes(), image.warnings
