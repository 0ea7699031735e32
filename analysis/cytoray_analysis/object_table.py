"""A table of the objects of a label image: position, size, shape and brightness.

Measured by scikit-image's ``regionprops``, whose names the columns keep; axes are written out
(``centroid_y`` instead of ``centroid-0``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.column_names import unique_names
from cytoray_analysis.errors import ImageError
from cytoray_analysis.numbering import dense_numbers

_ANY_DIMENSION = ("label", "area", "centroid", "bbox", "equivalent_diameter_area", "extent")
_PLANE_ONLY = (
    "perimeter",
    "eccentricity",
    "solidity",
    "orientation",
    "axis_major_length",
    "axis_minor_length",
)
_SQUARE = 0.01  # relative difference up to which the sides of a pixel count as equal


def measure_objects(
    labels: NDArray[np.integer[Any]],
    image: NDArray[Any] | None = None,
    pixel_size: Mapping[str, float] | None = None,
    confidence: NDArray[np.floating[Any]] | None = None,
    *,
    channels: Sequence[str] | None = None,
) -> dict[str, NDArray[Any]]:
    """Measure every object of an image or a volume.

    Parameters
    ----------
    labels
        (Y, X) or (Z, Y, X) integer, 0 background; numbers need not be consecutive.
    image
        (C, spatial…) pixels to measure intensities on.
    pixel_size
        Micrometres per spatial axis, such as ``{"Y": 0.65, "X": 0.65}``.
    confidence
        (highest label + 1,) how sure each object is, by its number; of objects with small numbers only.
    channels
        Names of the channels of `image`; their numbers by default. Of channels of one name the later ones get a number
        (``DAPI``, ``DAPI_2``), so that each has separate columns.

    Returns
    -------
    dict
        A column per measurement, each with an entry per object, in the order of their numbers:

        - ``label``; ``area`` in pixels (of a volume: voxels);
        - ``centroid_z``, ``centroid_y``, ``centroid_x`` in pixels; ``bbox_start_y``, ``bbox_stop_y``, … in pixels, the
          stop outside;
        - ``equivalent_diameter`` in pixels, of the disc or ball of that area; ``extent``, the share of the bounding
          box that the object fills;
        - of planar objects ``perimeter``, ``axis_major_length``, ``axis_minor_length`` in pixels; ``eccentricity`` and
          ``solidity``, 0 to 1; ``orientation`` in radians, from the Y axis to the major one, −π/2 to π/2;
        - with `image`: ``intensity_mean_CHANNEL`` and ``intensity_max_CHANNEL`` in the image's own units;
        - with `pixel_size`: ``area_um2`` or ``volume_um3``, ``equivalent_diameter_um``, ``centroid_y_um``, …; and where
          pixels are square ``perimeter_um``, ``axis_major_length_um``, ``axis_minor_length_um``;
        - with `confidence`: ``confidence``, 0 to 1.

    Raises
    ------
    ImageError
        `labels` is neither planar nor a volume, or `image` has another spatial shape.
    """
    from skimage.measure import regionprops_table

    if labels.ndim not in (2, 3):
        raise ImageError(f"expected labels (Y, X) or (Z, Y, X), got shape {labels.shape}", field="labels")
    axes = "zyx"[-labels.ndim :]
    properties = _ANY_DIMENSION + (_PLANE_ONLY if labels.ndim == 2 else ())
    names = _renamed(axes)
    pixels: NDArray[Any] | None = None
    if image is not None:
        if image.shape[1:] != labels.shape:
            raise ImageError(
                f"expected an image (C, {', '.join(map(str, labels.shape))}) for these labels, got {image.shape}",
                field="image",
                hint="labels and image must cover the same pixels",
            )
        pixels = np.moveaxis(image, 0, -1)
        properties += ("intensity_mean", "intensity_max")
        for index, channel in enumerate(unique_names(channels or map(str, range(len(image))))):
            names |= {f"intensity_{kind}-{index}": f"intensity_{kind}_{channel}" for kind in ("mean", "max")}
    dense, numbers = dense_numbers(labels)
    measured = regionprops_table(dense, pixels, properties=properties)  # type: ignore[no-untyped-call]
    table: dict[str, NDArray[Any]] = {names.get(name, name): column for name, column in measured.items()}
    if pixel_size is not None and all(axis.upper() in pixel_size for axis in axes):
        table |= _in_micrometres(table, {axis: pixel_size[axis.upper()] for axis in axes})
    if confidence is not None:
        table["confidence"] = confidence[table["label"]]
    table["label"] = numbers[table["label"]]
    return table


def _renamed(axes: str) -> dict[str, str]:
    """Return our name for each of scikit-image's numbered columns."""
    names = {"equivalent_diameter_area": "equivalent_diameter"}
    for index, axis in enumerate(axes):
        names |= {
            f"centroid-{index}": f"centroid_{axis}",
            f"bbox-{index}": f"bbox_start_{axis}",
            f"bbox-{index + len(axes)}": f"bbox_stop_{axis}",
        }
    return names


def _in_micrometres(table: Mapping[str, NDArray[Any]], sizes: Mapping[str, float]) -> dict[str, NDArray[Any]]:
    dimensions, pixel = len(sizes), math.prod(sizes.values())
    converted = {
        "area_um2" if dimensions == 2 else "volume_um3": table["area"] * pixel,
        "equivalent_diameter_um": table["equivalent_diameter"] * pixel ** (1 / dimensions),
    }
    converted |= {f"centroid_{axis}_um": table[f"centroid_{axis}"] * size for axis, size in sizes.items()}
    if dimensions == 2 and math.isclose(sizes["y"], sizes["x"], rel_tol=_SQUARE):
        lengths = ("perimeter", "axis_major_length", "axis_minor_length")
        converted |= {f"{name}_um": table[name] * sizes["x"] for name in lengths}
    return converted
