"""The selected part of the images of a data set, and the part of their truth that belongs to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import DatasetError
from cytoray_analysis.images import AXES, Image, image_from_array, read_image
from cytoray_analysis.images.axes import SPATIAL_AXES
from cytoray_analysis.images.choose import entries_along, follow, projected
from cytoray_analysis.images.writer import check_labels
from cytoray_analysis.numbering import dense_numbers
from cytoray_analysis.selection import LARGEST, Selection


def chosen_target(path: Path, selection: Selection, axes: str) -> Image:
    """Open the part of a target image for the selection of its image; a projection if one is selected.

    Parameters
    ----------
    axes
        Axes of its image, after the selection.
    """
    target = follow(read_image(path), selection, axes)
    return projected(target) if selection.plane == LARGEST else target


def chosen_labels(path: Path, selection: Selection, axes: str) -> np.ndarray:
    """Read the part of a label image for the selection of its image.

    Parameters
    ----------
    axes
        Axes of its image, after the selection.

    Returns
    -------
    numpy.ndarray
        (spatial…) integers; if each frame or plane is selected, with these axes first.

    Raises
    ------
    ImageError
        It contains no labels.
    DatasetError
        A projection is selected, but objects of the masks overlap in it.
    """
    masks = follow(read_image(path, labels=True), selection, axes)
    if "T" in masks.axes and "T" in selection.each:
        return np.stack([check_labels(frame) for _, frame in entries_along(masks, "T")])
    labels = check_labels(masks)
    return _seen(labels, path) if selection.plane == LARGEST and masks.axes == "ZYX" else labels


def chosen_known(path: Path, selection: Selection, axes: str) -> NDArray[np.bool_]:
    """Read the part of a mask of known pixels for the selection of its image.

    Parameters
    ----------
    axes
        Axes of its image, after the selection.

    Returns
    -------
    numpy.ndarray
        (spatial…) bool, as the labels of :func:`chosen_labels`. In a projection, a pixel is known if it is in all
        planes.

    Raises
    ------
    ImageError
        It contains no integers.
    """
    mask = follow(read_image(path, labels=True), selection, axes)
    if "T" in mask.axes and "T" in selection.each:
        return np.stack([check_labels(frame) for _, frame in entries_along(mask, "T")]) > 0
    known: NDArray[np.bool_] = check_labels(mask) > 0
    return np.logical_and.reduce(known) if selection.plane == LARGEST and mask.axes == "ZYX" else known


def only_known(labels: NDArray[Any], known: NDArray[np.bool_], path: Path) -> NDArray[np.int32]:
    """Return labels with −1 for each unknown pixel: what the loss, the scores and all statistics leave out.

    Parameters
    ----------
    labels
        (spatial…) integers; large numbers are made smaller, in the same order.
    known
        (spatial…) whether the label of a pixel is known.
    path
        Of the mask of known pixels, for messages.

    Raises
    ------
    DatasetError
        The sizes differ.
    """
    if known.shape != labels.shape:
        raise DatasetError(
            f"expected the mask of known pixels {path} to have the size of its labels, {labels.shape}, got "
            f"{known.shape}",
            field=str(path),
            hint="see: cytoray data check",
        )
    return np.where(known, dense_numbers(labels)[0].astype(np.int32), np.int32(-1))


def chosen_masks(masks: Image, selection: Selection, axes: str) -> Image:
    """Return the part of masks for the selection of their image with these axes, for the check of a data set."""
    masks = follow(masks, selection, axes)
    if selection.plane != LARGEST or masks.axes != "ZYX":
        return masks
    return image_from_array(_seen(check_labels(masks), Path(masks.source)), "YX", source=masks.source)


def one_stack(image: Image, selection: Selection) -> Image:
    """Return an image with separate frames as planes, so that it is checked as a stack."""
    if "T" not in image.axes or "T" not in selection.each:
        return image
    wanted = "".join(axis for axis in AXES if axis in image.axes or axis == "Z")
    pixels = np.moveaxis(image.select(wanted).read(), 0, wanted.index("Z") - 1)
    before = pixels.shape[: wanted.index("Z") - 1]
    pixels = pixels.reshape(*before, -1, *pixels.shape[-2:])
    return replace(image, data=pixels, axes=wanted.replace("T", ""))


def parts_of(
    image: Image, truth: Any, each: str, take: Callable[[Any, tuple[int, ...]], Any], path: Path | None
) -> Iterator[tuple[Image, Any]]:
    """Yield every plane or frame of an image with its truth.

    Parameters
    ----------
    each
        Axes along which every entry is a separate image.
    take
        Returns the truth of one, by its position.

    Raises
    ------
    DatasetError
        The truth has other planes or frames than the image.
    """
    axes = "".join(axis for axis in each if axis in image.axes)
    own = axes + "".join(axis for axis in SPATIAL_AXES if axis in image.axes and axis not in axes)
    shape = tuple(image.size(axis) for axis in own)
    if isinstance(truth, np.ndarray) and truth.ndim > 1 and truth.shape[-len(own) :] != shape:
        lengths = ", ".join(f"{axis}={length}" for axis, length in zip(own, shape, strict=True))
        raise DatasetError(
            f"expected the truth {path} to have the planes and frames of its image ({lengths}), got the shape "
            f"{truth.shape}",
            field=str(path),
            hint="add a mask for each plane and frame, or select one by its number",
        )
    for place, part in entries_along(image, axes):
        yield part, take(truth, place)


def _seen(labels: np.ndarray, path: Path) -> np.ndarray:
    """Return the labels in a projection along Z.

    Raises
    ------
    DatasetError
        Two objects overlap, so the projection has no unique truth.
    """
    highest: np.ndarray = labels.max(axis=0)
    lowest = np.where(labels > 0, labels, highest[np.newaxis]).min(axis=0)
    hidden = np.count_nonzero(highest != lowest)
    if hidden:
        raise DatasetError(
            f"{path}: expected masks for the maximum along Z, got a stack with overlapping objects in {hidden} pixels",
            field=str(path),
            hint="draw masks on the projection, or select a plane by its number",
        )
    return highest
