"""Prepares the input of a model: the image in its axes, and the given objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from cytoray_analysis.bundle import ModelInput
from cytoray_analysis.cells import Cells, cells_from_boxes
from cytoray_analysis.errors import AxesError, ImageError, RequestError
from cytoray_analysis.images import Image, list_series, read_image
from cytoray_analysis.images.axes import channel_names, known_pixel_size
from cytoray_analysis.images.choose import entries_along, follow
from cytoray_analysis.images.label_values import WholeNumbers, as_labels
from cytoray_analysis.images.series import each_series
from cytoray_analysis.images.writer import check_labels
from cytoray_analysis.selection import EACH, EVERYTHING, Selection
from cytoray_analysis.tracking.ctc import holds_frames as holds_frames  # of movies, for those who open inputs here
from cytoray_analysis.tracking.ctc import holds_masks as holds_masks
from cytoray_analysis.tracking.ctc import read_masks, read_movie

if TYPE_CHECKING:
    from cytoray_analysis.predictor import Predictor

# The sides of a box in the usual order; the first half is the start.
SIDES = {2: ("xmin", "ymin", "xmax", "ymax"), 3: ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax")}
_ZARR_FILES = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
_JSON_BOXES: TypeAdapter[list[tuple[float, ...]]] = TypeAdapter(list[tuple[float, ...]])


def in_model_axes(image: Image, *, movie: bool) -> Image:
    """Interpret the first axis of a stack as time if the model takes movies and the file does not name the axis.

    The pages of plain TIFF files are read as a stack: ``ZYX``, or ``CZYX`` for four axes. For a model of movies these
    are ``TYX`` and ``TZYX``. Images of other models, and images with declared axes, are unchanged.

    Raises
    ------
    AxesError
        The model takes movies, but the file declares a stack along Z without time.
    """
    if not movie:
        return image
    if not image.guessed_axes:
        if "T" not in image.axes and image.size("Z") > 1:
            raise AxesError(
                f"{image.source}: expected a movie with time points (T), got a z-stack: {image.axes} with "
                f"{image.size('Z')} planes along Z",
                field="axes",
                hint=f"if its planes are time points, add --input-axes {image.axes.replace('Z', 'T')}",
            )
        return image
    return _planes_as_frames(image)


def _planes_as_frames(image: Image) -> Image:
    if image.axes not in ("ZYX", "CZYX"):
        return image
    axes = "T" + image.axes[1:]
    channels = channel_names(None, 1) if image.axes == "CZYX" else image.channels
    return replace(image, axes=axes, channels=channels, pixel_size=known_pixel_size(image.pixel_size or {}, axes))


def require_objects_fit(
    predictor: Predictor, *, masks: object = None, boxes: object = None, segmentation: object = None
) -> None:
    """Raise :class:`RequestError` unless a model can use the given objects.

    Parameters
    ----------
    masks, boxes, segmentation
        The given objects; None if not given.
    """
    given = [
        name
        for name, value in (("masks", masks), ("boxes", boxes), ("segmentation", segmentation))
        if value is not None
    ]
    takes = {"pixel": (), "cell": ("masks", "boxes", "segmentation"), "link": ("masks", "segmentation")}[
        predictor.task.output.per
    ]
    name = predictor.identity.name
    for one in given:
        if one not in takes:
            raise RequestError(
                f"expected {' or '.join(takes) or 'only an image'} for the model {name}, got {one}",
                field=one,
                hint=f"remove {one}" if not takes else f"give {takes[0]} instead",
            )
    if len(given) > 1:
        raise RequestError(
            f"expected one of {', '.join(takes)}, got {' and '.join(given)}",
            field=given[1],
            hint="each of them gives the objects: keep one",
        )
    if predictor.task.output.per == "link" and not given:
        raise RequestError(
            f"expected masks of the movie, or a segmentation model that finds its objects, for the model {name}, "
            "got neither",
            field="masks",
            hint="send masks, or a segmentation such as nuclei@champion",
        )


def label_pixels(image: Image, model_input: ModelInput, selection: Selection = EVERYTHING, axes: str = "") -> Any:
    """Return the label image of a file in the form for a model: an array, or an image for a movie.

    Parameters
    ----------
    selection
        The part of the image to use; it also applies to planes and frames of the masks.
    axes
        Axes of the image after the selection.

    Raises
    ------
    ImageError
        Values are not whole, negative or above 2⁵³, or there are channels, or the selection does not fit.
    """
    if not model_input.movies:
        image = follow(image, selection, axes)
        if "T" in image.axes and "T" in selection.each:
            return np.stack([check_labels(frame) for _, frame in entries_along(image, "T")])
        return check_labels(image)
    # Masks of a movie have frames, under any name of the axis: their shape is compared with the movie.
    image = follow(image, Selection(input_axes=selection.input_axes))
    unnamed = image.channels == channel_names(None, image.size("C"))
    movie = follow(_planes_as_frames(image) if unnamed else image, selection.without("input_axes"))
    if movie.size("C") > 1 or movie.dtype.kind not in "buif":
        raise ImageError(
            f"{image.source}: expected masks of a movie as integers with axes TYX or TZYX, got {image.axes} of "
            f"{image.dtype}",
            field="masks",
            hint="store one integer per pixel: the number of the object, or 0 for background",
        )
    if isinstance(movie.data, np.ndarray):
        return replace(movie, data=as_labels(movie.data, image.source))
    return replace(movie, data=WholeNumbers(movie.data, image.source))  # read frame by frame later


def boxes_of_json(text: str, image: Image, model_input: ModelInput) -> Cells:
    """Read boxes from JSON: ``[[xmin, ymin, xmax, ymax], …]``; for volumes ``[xmin, ymin, zmin, xmax, ymax, zmax]``.

    Raises
    ------
    RequestError
        The text is malformed, or a box is empty or outside the image.
    """
    try:
        rows = _JSON_BOXES.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RequestError(
            f"expected boxes as a JSON list of lists of numbers, got {text[:80]!r} ({place or 'list'}: {first['msg']})",
            field="boxes",
            hint="give for example [[10, 20, 42, 50]]: xmin, ymin, xmax, ymax in pixels",
        ) from error
    return cells_of_rows(rows, image, model_input)


def cells_of_rows(rows: Sequence[Sequence[float]], image: Image, model_input: ModelInput) -> Cells:
    """Convert boxes with X first to cells of an image, numbered from 1.

    Raises
    ------
    RequestError
        A box has a wrong number of sides, is empty, not finite or outside the image.
    """
    dimensions = len(model_input.spatial_axes)
    sides = SIDES[dimensions]
    shape = tuple(image.size(axis) for axis in model_input.spatial_axes)
    for number, row in enumerate(rows, start=1):
        if len(row) != len(sides):
            raise RequestError(
                f"expected boxes of {len(sides)} numbers ({', '.join(sides)}), got {len(row)} in box {number}",
                field="boxes",
                hint=f"the model works on {model_input.spatial_axes}",
            )
    boxes = [(tuple(reversed(row[:dimensions])), tuple(reversed(row[dimensions:]))) for row in rows]
    if not boxes:
        return Cells(np.zeros((0, 2, dimensions)), np.zeros(0, np.int64))
    cells = cells_from_boxes(boxes)
    outside = ((cells.boxes[:, 1] <= 0) | (cells.boxes[:, 0] >= shape)).any(axis=1)
    if outside.any():
        number = int(np.flatnonzero(outside)[0])
        raise RequestError(
            f"expected boxes inside the image of {' × '.join(map(str, shape))} pixels, "
            f"got {list(rows[number])} as box {number + 1}",
            field="boxes",
            hint=f"the order is {', '.join(sides)}, in pixels",
        )
    return cells


def open_input(path: Path, selection: Selection = EVERYTHING) -> Image:
    """Open the selected part of an image, or of a folder of frames."""
    if path.is_dir() and not is_zarr(path) and path.suffix.lower() != ".zarr":
        return read_movie(path, selection)
    return read_image(path, selection=selection)


def series_of(path: Path, selection: Selection) -> list[tuple[str, Selection]]:
    """Return the selections of a file with the name of each series: one per series, or the file itself.

    The name is empty if there is only one series.
    """
    if selection.series != EACH or (path.is_dir() and not is_zarr(path)):
        return [("", selection.without("series") if selection.series == EACH else selection)]
    return each_series(list_series(path), selection)


def open_masks(path: Path) -> Image:
    """Open a label image, or a folder of masks of a movie."""
    if path.is_dir() and not is_zarr(path):
        return read_masks(path)
    return read_image(path, labels=True)


def is_zarr(folder: Path) -> bool:
    """Whether a folder is an OME-Zarr."""
    return any((folder / name).is_file() for name in _ZARR_FILES)
