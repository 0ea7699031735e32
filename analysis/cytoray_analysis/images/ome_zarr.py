"""OME-Zarr (NGFF 0.4 and 0.5): what the metadata say about the pixels, wherever the chunks lie."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cytoray_analysis.errors import UnreadableImageError
from cytoray_analysis.images.axes import micrometres

# Axis names of early files, which had no others.
_OLD_AXES = "TCZYX"
_LARGEST_CHUNK = 2**28
_LARGER_THAN_IMAGE = 8


@dataclass(frozen=True)
class ZarrPixels:
    """The largest level of an OME-Zarr image.

    Parameters
    ----------
    array
        The zarr array; slicing it decodes the chunks touched.
    axes
        One letter per axis.
    channels
        Channel names, where there are any.
    pixel_size
        Micrometres per pixel by axis; ``None`` for unknown.
    """

    array: Any
    axes: str
    channels: tuple[str, ...] | None
    pixel_size: Mapping[str, float | None]


def open_zarr(store: Any, label: str) -> ZarrPixels:
    """Read the metadata of an OME-Zarr image.

    Parameters
    ----------
    store
        A zarr store or the path of a folder.

    Raises
    ------
    UnreadableImageError
        It is no OME-Zarr, or a store of several images.
    """
    import zarr

    group = zarr.open_group(store, mode="r")
    attributes: dict[str, Any] = dict(group.attrs)
    image = image_of(attributes, label)
    level = image["datasets"][0]
    array = group[level["path"]]
    if not isinstance(array, zarr.Array):
        raise ValueError(f"{level['path']!r} is no array")
    axes = letters_of(image, array.ndim)
    units = [axis.get("unit") if isinstance(axis, dict) else None for axis in image.get("axes") or [None] * array.ndim]
    _check_chunks(array, label)
    scale = [a * b for a, b in zip(_scale(level, array.ndim), _scale(image, array.ndim), strict=True)]
    return ZarrPixels(
        array=array,
        axes=axes,
        channels=_channels(attributes.get("ome", attributes).get("omero")),
        pixel_size={
            axis: micrometres(size, unit)
            for axis, unit, size in zip(axes, units, scale, strict=True)
            if axis in "ZYX" and unit is not None
        },
    )


def image_of(attributes: Mapping[str, Any], label: str) -> Mapping[str, Any]:
    """Return the description of the first image in the attributes of a group.

    Raises
    ------
    UnreadableImageError
        There is none.
    """
    inner = attributes.get("ome", attributes)
    if inner.get("multiscales"):
        image: Mapping[str, Any] = inner["multiscales"][0]
        return image
    what = "a plate of several images" if "plate" in inner or "well" in inner else "a Zarr store"
    raise UnreadableImageError(
        f"{label} is {what} without OME metadata of one image (multiscales)",
        hint="name the image group inside it, such as plate.zarr/A/1/0, or write it as OME-Zarr",
    )


def letters_of(image: Mapping[str, Any], dimensions: int) -> str:
    """Return one letter per axis of an image."""
    axes = image.get("axes")
    if axes is None:
        return _OLD_AXES[-dimensions:]
    names = [axis if isinstance(axis, str) else axis["name"] for axis in axes]
    if len(names) != dimensions or any(len(name) != 1 for name in names):
        raise ValueError(f"expected {dimensions} axes of one letter, got {names}")
    return "".join(names).upper()


def _check_chunks(array: Any, label: str) -> None:
    """Refuse chunks that are much larger than the image: each is decoded as a whole."""
    itemsize = np.dtype(array.dtype).itemsize
    chunk = math.prod(array.shards or array.chunks) * itemsize
    if chunk > max(_LARGEST_CHUNK, _LARGER_THAN_IMAGE * math.prod(array.shape) * itemsize):
        raise UnreadableImageError(
            f"{label} declares chunks of {chunk} bytes, far larger than the image", hint="write it with smaller chunks"
        )


def _scale(level: Mapping[str, Any], dimensions: int) -> Sequence[float]:
    for transformation in level.get("coordinateTransformations", []):
        if transformation.get("type") == "scale" and "scale" in transformation:
            return [float(factor) for factor in transformation["scale"]]
    return [1.0] * dimensions


def _channels(omero: Any) -> tuple[str, ...] | None:
    names = tuple(str(channel.get("label") or "") for channel in (omero or {}).get("channels", []))
    return names or None
