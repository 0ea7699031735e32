"""The files of a question that come by URI, read within limits, as the bytes that a replica takes."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

from cytoray_analysis.errors import ImageTooLargeError, RequestError
from cytoray_analysis.images import Limits, write_image
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
    return Question(
        image=_bytes(image, largest_image),
        accept=accept,
        masks=None if masks is None else _bytes(masks, largest_image),
        boxes=None if asked.boxes is None else json.dumps(asked.boxes),
        segmentation=asked.segmentation,
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
    )


def _bytes(file: Place, largest_image: int) -> bytes:
    """Return an image file as it is; an OME-Zarr, which is a folder, as an OME-TIFF."""
    if not file.is_zarr():
        return file.read_bytes()
    image = file.open_image(Limits())
    pixels = math.prod(length for axis, length in zip(image.axes, image.shape, strict=True) if axis != "C")
    if pixels > largest_image:
        raise ImageTooLargeError(
            f"{file.uri} holds {pixels} pixels, more than the {largest_image} that are answered at once",
            field="image",
            hint="name an output, and the request becomes a job that answers tile by tile",
        )
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        write_image(Path(folder) / "image.ome.tif", image)
        return (Path(folder) / "image.ome.tif").read_bytes()
