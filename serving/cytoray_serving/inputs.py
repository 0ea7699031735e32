"""What a model is asked: its image in the axes that it takes, and the objects that it is told of."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from cytoray_analysis.bundle import ModelInput
from cytoray_analysis.cells import Cells, cells_from_boxes
from cytoray_analysis.errors import ImageError, MissingFileError, RequestError
from cytoray_analysis.images import Image, image_from_array, read_image
from cytoray_analysis.images.axes import channel_names
from cytoray_analysis.images.writer import check_labels
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.tracking.ctc import read_masks, read_movie

# The sides of a box in the order of the field's tables; the first half is where it begins.
_SIDES = {2: ("xmin", "ymin", "xmax", "ymax"), 3: ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax")}
_FRAME = re.compile(r"t\d{3,4}\.tiff?")
_LARGEST_LABEL = 2**24  # tables by number must fit into memory
_MASK = re.compile(r"(man_track|man_seg|mask)\d{3,4}\.tiff?")
_ZARR_FILES = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
_IMAGE_COLUMNS = ("image", "path")
_JSON_BOXES: TypeAdapter[list[tuple[float, ...]]] = TypeAdapter(list[tuple[float, ...]])


def is_movie(model_input: ModelInput) -> bool:
    """Whether a model takes movies."""
    return "T" in model_input.axes


def in_model_axes(image: Image, *, movie: bool) -> Image:
    """Take the first axis of a stack as time where a model takes movies and the file names no time axis.

    Plain TIFF files say only that they hold planes, which are read as a stack: ``ZYX``, or ``CZYX`` for four axes. For
    a model of movies these are ``TYX`` and ``TZYX``. Images with named channels, and all other models, are left alone.
    """
    unnamed = image.channels == channel_names(None, image.size("C"))
    if not movie or image.axes not in ("ZYX", "CZYX") or not unnamed:
        return image
    sizes = {axis: size for axis, size in (image.pixel_size or {}).items() if axis in image.axes[1:]}
    return image_from_array(image.data, "T" + image.axes[1:], pixel_size=sizes, source=image.source)


def require_objects_fit(
    predictor: Predictor, *, masks: object = None, boxes: object = None, segmentation: object = None
) -> None:
    """Raise :class:`RequestError` unless a model can use what it is told of the objects.

    Parameters
    ----------
    masks, boxes, segmentation
        What was given; None for nothing.
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
                f"expected {' or '.join(takes) or 'an image alone'} for the model {name}, got {one}",
                field=one,
                hint=f"leave {one} out" if not takes else f"give {takes[0]} instead",
            )
    if len(given) > 1:
        raise RequestError(
            f"expected one of {', '.join(takes)}, got {' and '.join(given)}",
            field=given[1],
            hint="each of them says where the objects are",
        )
    if predictor.task.output.per == "link" and not given:
        raise RequestError(
            f"expected masks of the movie, or a segmentation model that finds its objects, for the model {name}, "
            "got neither",
            field="masks",
            hint="send masks, or segmentation such as nuclei@champion",
        )


def label_pixels(image: Image, model_input: ModelInput) -> Any:
    """Return the label image that a file holds, as a model takes it: an array, or for a movie an image.

    Raises
    ------
    ImageError
        Pixels are real numbers, negative or too large, or there are channels.
    """
    if not is_movie(model_input):
        labels = check_labels(image)
        _check_numbers(labels, image.source)
        return labels
    movie = in_model_axes(image, movie=True)
    if movie.size("C") > 1 or movie.dtype.kind not in "bui":
        raise ImageError(
            f"{image.source}: masks of a movie are integers with axes TYX or TZYX, got {image.axes} of {image.dtype}",
            field="masks",
            hint="store one integer per pixel: the number of the object, 0 for background",
        )
    if isinstance(movie.data, np.ndarray):  # those of files are read frame by frame later
        _check_numbers(movie.data, image.source)
    return movie


def _check_numbers(labels: NDArray[Any], source: str) -> None:
    lowest, highest = int(labels.min(initial=0)), int(labels.max(initial=0))
    if lowest < 0 or highest > _LARGEST_LABEL:
        raise ImageError(
            f"{source}: labels must be 0 to {_LARGEST_LABEL}, got {lowest} to {highest}",
            field="masks",
            hint="use 0 for background, and renumber the objects from 1",
        )


def boxes_of_json(text: str, image: Image, model_input: ModelInput) -> Cells:
    """Read boxes from JSON: ``[[xmin, ymin, xmax, ymax], …]``; for volumes ``[xmin, ymin, zmin, xmax, ymax, zmax]``.

    Raises
    ------
    RequestError
        It is something else, or a box is empty or outside the image.
    """
    try:
        rows = _JSON_BOXES.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RequestError(
            f"expected boxes as a JSON list of lists of numbers, got {text[:80]!r} ({place or 'list'}: {first['msg']})",
            field="boxes",
            hint="such as [[10, 20, 42, 50]]: xmin, ymin, xmax, ymax in pixels",
        ) from error
    return cells_of_rows(rows, image, model_input)


def cells_of_rows(rows: Sequence[Sequence[float]], image: Image, model_input: ModelInput) -> Cells:
    """Turn boxes with X first into cells of an image, numbered from 1.

    Raises
    ------
    RequestError
        A box has another number of sides, is empty, not finite or outside the image.
    """
    dimensions = len(model_input.spatial_axes)
    sides = _SIDES[dimensions]
    shape = tuple(image.size(axis) for axis in model_input.spatial_axes)
    for number, row in enumerate(rows, start=1):
        if len(row) != len(sides):
            raise RequestError(
                f"expected boxes of {len(sides)} numbers ({', '.join(sides)}), got {len(row)} in number {number}",
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
            f"got {list(rows[number])} as number {number + 1}",
            field="boxes",
            hint=f"the order is {', '.join(sides)}, in pixels",
        )
    return cells


def rows_of_csv(path: Path, image: Path, *, alone: bool) -> list[list[float]]:
    """Read the boxes of an image from a CSV file, X first.

    Parameters
    ----------
    path
        Columns ``xmin, ymin, xmax, ymax`` (``zmin, zmax`` for volumes) in pixels, and where it is about several images
        a column ``image`` or ``path`` that ends in the image's file name.
    image
        Which image.
    alone
        Whether it is the only image; if not, that column is needed.

    Raises
    ------
    MissingFileError
        There is no such file.
    RequestError
        A column is missing, a side is no number, or no row is about the image.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist", field="boxes", hint="check the path")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            names = tuple(reader.fieldnames or ())
            rows = list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise RequestError(
            f"{path} is not a CSV file in UTF-8: {error}",
            field="boxes",
            hint="give a table with the columns xmin, ymin, xmax, ymax",
        ) from error
    sides = _SIDES[3] if "zmin" in names else _SIDES[2]
    missing = [side for side in sides if side not in names]
    if missing:
        raise RequestError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(names) or 'no header'}",
            field="boxes",
            hint="name the columns xmin, ymin, xmax, ymax (and zmin, zmax)",
        )
    column = next((name for name in _IMAGE_COLUMNS if name in names), None)
    if column is None and not alone:
        raise RequestError(
            f"{path} has no column {' or '.join(_IMAGE_COLUMNS)}, and there are several inputs",
            field="boxes",
            hint="name the image of each box in such a column",
        )
    found = []
    for line, row in enumerate(rows, start=2):
        if column is not None and Path(row[column] or "").name != image.name:
            continue
        try:
            found.append([float(row[side]) for side in sides])
        except (TypeError, ValueError) as error:
            raise RequestError(
                f"{path}, line {line}: expected numbers for the box, got {[row[side] for side in sides]}",
                field="boxes",
                hint="give its sides in pixels",
            ) from error
    if not found:
        raise RequestError(
            f"{path} holds no box for {image.name}", field="boxes", hint="the column image names files, such as a.tif"
        )
    return found


def are_frames(names: Iterable[str]) -> bool:
    """Whether names are those of a movie's numbered frames, ``t000.tif`` and on."""
    return any(_FRAME.fullmatch(name) for name in names)


def holds_frames(folder: Path) -> bool:
    """Whether a folder holds a movie as numbered frames."""
    return folder.is_dir() and are_frames(path.name for path in folder.iterdir())


def holds_masks(folder: Path) -> bool:
    """Whether a folder holds masks of frames: ``mask000.tif``, ``man_track000.tif`` or ``man_seg000.tif``, and on."""
    return folder.is_dir() and any(_MASK.fullmatch(path.name) for path in folder.iterdir())


def open_input(path: Path) -> Image:
    """Open an image, or the folder of a movie's frames."""
    return read_movie(path) if holds_frames(path) else read_image(path)


def open_masks(path: Path) -> Image:
    """Open a label image, or the folder of the masks of a movie's frames."""
    return read_masks(path) if holds_masks(path) else read_image(path)


def is_zarr(folder: Path) -> bool:
    """Whether a folder is an OME-Zarr."""
    return any((folder / name).is_file() for name in _ZARR_FILES)
