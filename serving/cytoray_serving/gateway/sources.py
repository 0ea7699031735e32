"""Reads the files of a request by URI, within limits, as bytes for a replica."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

from cytoray_analysis.answer_warnings import Warnings, join_warnings
from cytoray_analysis.errors import ImageTooLargeError, RequestError
from cytoray_analysis.images import Limits, write_image
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_services.storage.allowed import Allowed
from cytoray_services.storage.locate import locate
from cytoray_services.storage.location import StorageLocation
from cytoray_serving.jobs.request import JobRequest
from cytoray_serving.messages import Count, Question
from cytoray_serving.schema import UriQuestion
from cytoray_serving.service.config import ServiceConfig


def fetch_question(
    asked: UriQuestion, accept: str | None, config: ServiceConfig, allowed: Allowed, count: Count
) -> Question:
    """Read the files of a request.

    Parameters
    ----------
    accept
        The ``Accept`` header, which chooses the form of the answer.
    config
        Limits of file sizes, the same as for bodies.
    allowed
        Allowed locations of the caller.
    count
        Called with their bytes as they are read.

    Raises
    ------
    OverloadedError
        There is no room for them.
    ForbiddenError, MissingFileError, ImageError, PlatformError
        A file is not allowed, does not exist, is not an image, or its store does not answer.
    """
    allowed = allowed.model_copy(update={"largest_file": config.limits.body_megabytes * 2**20})
    largest_image = config.largest_image
    image = locate(asked.image, allowed, field="image")
    masks = None if asked.masks is None else locate(asked.masks, allowed, field="masks")
    body, warnings, left = _chosen_bytes(image, largest_image, asked.selection, count)
    objects, more = (None, ()) if masks is None else _bytes(masks, largest_image, count, labels=True)
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
    """Return the job for a request with an output.

    Raises
    ------
    RequestError
        It has boxes, which jobs need as a file.
    """
    if asked.boxes is not None:
        raise RequestError(
            "expected no boxes together with an output, got some",
            field="boxes",
            hint="use POST /models/{model}/jobs with the URI of a CSV of boxes",
        )
    if asked.output is None:
        raise RequestError("expected an output, got none", field="output")
    return JobRequest(
        input=asked.image,
        output=asked.output,
        format=asked.format,
        masks=asked.masks,
        segmentation=asked.segmentation,
        team=asked.team,
        **asked.given(),
    )


def _chosen_bytes(
    file: StorageLocation, largest_image: int, selection: Selection, count: Count
) -> tuple[bytes, Warnings, Selection]:
    """Return an image file, its warnings, and the remaining selection, such as a plane of an OME-Zarr."""
    if not file.is_zarr():
        return file.read_bytes(count), (), selection
    each = ("plane" if axis == "Z" else "frame" for axis in selection.each)
    here = selection.without("channel", "pixel_size", "diameter", *each)
    return *_bytes(file, largest_image, count, here), selection.without(*here.given())


def _bytes(
    file: StorageLocation, largest_image: int, count: Count, selection: Selection = EVERYTHING, *, labels: bool = False
) -> tuple[bytes, Warnings]:
    """Return an image file unchanged, or an OME-Zarr folder as an OME-TIFF, with its warnings."""
    if not file.is_zarr():
        return file.read_bytes(count), ()
    image = file.open_image(Limits(), selection, labels=labels)
    pixels = math.prod(length for axis, length in zip(image.axes, image.shape, strict=True) if axis != "C")
    if pixels > largest_image:
        raise ImageTooLargeError(
            f"expected an image of at most {largest_image} pixels, got {pixels} in {file}",
            field="image",
            hint="add an output: the request then becomes a job, which processes the image in tiles",
        )
    size, most = math.prod(image.shape) * image.dtype.itemsize, file.allowed.largest_file
    if size > most:
        raise ImageTooLargeError(
            f"expected at most {most} bytes of pixels in a request, got {size} in {file}",
            field="image",
            hint="choose channels, planes or frames, or add an output: the request then becomes a job",
        )
    count(size)
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        write_image(Path(folder) / "image.ome.tif", image)
        return (Path(folder) / "image.ome.tif").read_bytes(), image.warnings
