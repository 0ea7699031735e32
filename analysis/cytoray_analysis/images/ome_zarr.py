"""OME-Zarr (NGFF 0.4 and 0.5): the description of the pixels, for any store of the chunks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cytoray_analysis.answer_warnings import Warnings
from cytoray_analysis.errors import UnreadableImageError
from cytoray_analysis.images.axes import micrometres
from cytoray_analysis.images.ome_xml import number as number_of
from cytoray_analysis.images.series import SeriesInfo, choose_series
from cytoray_analysis.images.stored_chunks import StoredChunks, without_tail

# Axis names of early files, which had no others.
_OLD_AXES = "TCZYX"
_LARGEST_CHUNK = 2**28
_LARGER_THAN_IMAGE = 8
_TINY, _MOST_TINY = 2**10, 2**16


@dataclass(frozen=True)
class ZarrPixels:
    """One level of an OME-Zarr image.

    Parameters
    ----------
    array
        The pixels; slicing decodes the chunks touched.
    axes
        One letter per axis.
    channels
        Channel names, where there are any.
    pixel_size
        Micrometres per pixel by axis; ``None`` for unknown.
    warnings
        What was assumed.
    levels
        Number of levels of the image.
    """

    array: Any
    axes: str
    channels: tuple[str, ...] | None
    pixel_size: Mapping[str, float | None]
    warnings: Warnings = ()
    levels: int = 1


@dataclass(frozen=True, eq=False)
class _Found:
    """One image of a store: its path among the groups, its description, and the reason why it cannot be opened."""

    info: SeriesInfo
    group: Any
    image: Mapping[str, Any]
    attributes: Mapping[str, Any]
    fault: UnreadableImageError | None = None


def open_zarr(
    store: Any,
    label: str,
    *,
    series: str | None = None,
    level: int = 0,
    labels: bool = False,
    alone: bool = False,
    chunk_bytes: int | None = None,
) -> ZarrPixels:
    """Read the metadata of an OME-Zarr image.

    Parameters
    ----------
    store
        A zarr store or the path of a folder.
    series
        Which image, in a store of several: a collection of bioformats2raw, or the fields of a plate.
    level
        Which of its levels, from 0 for the largest.
    labels
        Whether it is a label image, whose chunks without objects need not be stored.
    alone
        Whether it is untrusted: codecs without a size limit are refused.
    chunk_bytes
        Bytes that a chunk may have, decoded; ``None`` for a small multiple of its image.

    Raises
    ------
    UnreadableImageError
        It is not an OME-Zarr, has several images, or lacks parts that its metadata name.
    """
    from cytoray_analysis.images.chunk_codecs import bounded

    found = _images(store, label)
    faults = [one.fault for one in found if one.fault is not None]
    if faults and series is None:
        raise faults[0]
    index, warnings = choose_series([one.info for one in found], series, label)
    one = found[index]
    if one.fault is not None:
        raise one.fault
    array = _level(one.group, one.image, label, level)
    image, attributes = one.image, one.attributes
    axes = letters_of(image, array.ndim)
    units = [axis.get("unit") if isinstance(axis, dict) else None for axis in image.get("axes") or [None] * array.ndim]
    _check_chunks(array, label, chunk_bytes, alone=alone)
    scales = zip(_scale(image["datasets"][level], array.ndim), _scale(image, array.ndim), strict=True)
    count = array.shape[axes.index("C")] if "C" in axes else 1
    pixels, stopped = without_tail(StoredChunks(bounded(array, label, alone=alone), axes, label, labels))
    return ZarrPixels(
        array=pixels,
        axes=axes,
        channels=_channels(attributes.get("ome", attributes).get("omero"), count),
        pixel_size={
            axis: micrometres(size, unit)
            for axis, unit, size in zip(axes, units, [a * b for a, b in scales], strict=True)
            if axis in "ZYX" and isinstance(unit, str)
        },
        warnings=warnings + stopped,
        levels=len(image["datasets"]),
    )


def list_zarr(store: Any, label: str) -> tuple[SeriesInfo, ...]:
    """List the images of a store.

    Raises
    ------
    UnreadableImageError
        As :func:`open_zarr` does.
    """
    return tuple(one.info for one in _images(store, label))


def _images(store: Any, label: str) -> list[_Found]:
    import zarr

    try:
        group = zarr.open_group(store, mode="r")
    except (zarr.errors.ContainsArrayError, zarr.errors.NodeTypeValidationError, FileNotFoundError, KeyError) as error:
        raise UnreadableImageError(
            f"expected OME metadata of an image in {label}, found a single Zarr array, or no Zarr group",
            hint="use the folder of the image, one above its levels, or write it as OME-Zarr",
        ) from error
    attributes: dict[str, Any] = dict(group.attrs)
    inner = attributes.get("ome", attributes)
    if inner.get("multiscales"):
        images = inner["multiscales"]
        return [_found(group, image, attributes, name_of(image, images), label) for image in images]

    def attributes_of(place: str) -> Mapping[str, Any] | None:
        member = group.get(place)
        return dict(member.attrs) if isinstance(member, zarr.Group) else None

    places = places_in(attributes, attributes_of, [str(name) for name, _ in group.groups()])
    found = []
    for place in places:
        try:
            member, own = group.get(place), attributes_of(place)
            if own is None:
                raise no_image(label, place)
            found.append(_found(member, image_of(own, f"{label}/{place}"), own, place, f"{label}/{place}"))
        except UnreadableImageError as error:  # raised on access; the others can be chosen
            found.append(_Found(SeriesInfo(place, "YX", (0, 0)), None, {}, {}, error))
    if not found:
        image_of(attributes, label)
    return found


def name_of(image: Mapping[str, Any], images: Sequence[Any]) -> str:
    """Return the name of one of the images of a group; empty where it is the only one."""
    return str(image.get("name") or "") if len(images) > 1 else ""


def places_in(
    attributes: Mapping[str, Any], attributes_of: Callable[[str], Mapping[str, Any] | None], groups: Iterable[str]
) -> list[str]:
    """Return the paths of the images in a plate, a well or a collection of bioformats2raw; none of other groups.

    A missing well represents its images.

    Parameters
    ----------
    attributes
        Of the group.
    attributes_of
        Returns the attributes of a subgroup, None if it is missing.
    groups
        Names of the groups directly below it.
    """
    inner = attributes.get("ome", attributes)
    if "plate" in inner:
        wells = [str(well["path"]) for well in inner["plate"].get("wells", [])]
        described = {well: attributes_of(well) for well in wells}
        return [
            place
            for well, about in described.items()
            for place in ([well] if about is None else [f"{well}/{field}" for field in _fields(about)])
        ]
    if "well" in inner:
        return _fields(attributes)
    if "bioformats2raw.layout" not in inner:
        return []
    about = attributes_of("OME") or {}
    names = about.get("ome", about).get("series")
    return [str(name) for name in names] if names else sorted(filter(str.isdecimal, groups), key=int)


def _fields(attributes: Mapping[str, Any]) -> list[str]:
    well = attributes.get("ome", attributes).get("well", {})
    return [str(image["path"]) for image in well.get("images", [])]


def _found(group: Any, image: Mapping[str, Any], attributes: Mapping[str, Any], name: str, label: str) -> _Found:
    array = _level(group, image, label)
    return _Found(SeriesInfo(name, letters_of(image, array.ndim), tuple(array.shape)), group, image, attributes)


def _level(group: Any, image: Mapping[str, Any], label: str, level: int = 0) -> Any:
    """Return the array of a level, of the largest by default."""
    import zarr

    path = image["datasets"][level]["path"]
    array = group.get(path)
    if not isinstance(array, zarr.Array):
        raise no_level(label, path)
    return array


def no_level(label: str, path: str) -> UnreadableImageError:
    """Return the error for an image without the array of a level."""
    return UnreadableImageError(
        f"{label}: expected the array of its level {path!r}, found none",
        hint="copy the whole OME-Zarr folder again",
    )


def no_image(label: str, place: str) -> UnreadableImageError:
    """Return the error for a collection without an image that it lists."""
    return UnreadableImageError(
        f"{label} lists the image {place}, which is missing",
        hint="copy the folder again as a whole, or name one of its images by its own path",
    )


def has_image(attributes: Mapping[str, Any]) -> bool:
    """Whether the attributes of a group describe an image."""
    return bool(attributes.get("ome", attributes).get("multiscales"))


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


def _check_chunks(array: Any, label: str, chunk_bytes: int | None, *, alone: bool) -> None:
    """Refuse chunks that are much larger than the image or the limit, and many tiny chunks of untrusted images.

    Each is decoded completely, and takes a fraction of a millisecond however small it is.
    """
    count = math.prod(-(-length // side) for length, side in zip(array.shape, array.chunks, strict=True))
    if alone and count > _MOST_TINY and math.prod(array.chunks) < _TINY:
        raise UnreadableImageError(
            f"{label} declares {count} chunks of {math.prod(array.chunks)} pixels",
            hint=f"write it with chunks of {_TINY} pixels or more",
        )
    itemsize = np.dtype(array.dtype).itemsize
    chunk = math.prod(array.shards or array.chunks) * itemsize
    if chunk > max(_LARGEST_CHUNK, _LARGER_THAN_IMAGE * math.prod(array.shape) * itemsize):
        raise UnreadableImageError(
            f"{label} declares chunks of {chunk} bytes, far larger than the image", hint="write it with smaller chunks"
        )
    if array.shards and len(array.metadata.codecs) == 1:  # zarr decodes the chunks in a shard one by one
        chunk = math.prod(array.chunks) * itemsize
    if chunk_bytes is not None and chunk > chunk_bytes:
        raise UnreadableImageError(
            f"{label} declares chunks of {chunk} bytes, more than the {chunk_bytes} that are decoded at once",
            hint="write it with smaller chunks",
        )


def _scale(level: Mapping[str, Any], dimensions: int) -> Sequence[float]:
    """Return the size of a pixel along each axis; NaN if the stored value is invalid."""
    transformations = level.get("coordinateTransformations") or []
    for transformation in transformations if isinstance(transformations, list) else [None]:
        if not isinstance(transformation, dict):
            return [math.nan] * dimensions
        if transformation.get("type") != "scale" or "scale" not in transformation:
            continue
        scale = transformation["scale"]
        factors = [number_of(factor) for factor in scale] if isinstance(scale, list) else []
        factors += [None] * (dimensions - len(factors))
        return [math.nan if factor is None else factor for factor in factors[:dimensions]]
    return [1.0] * dimensions


def _channels(omero: Any, count: int) -> tuple[str, ...] | None:
    """Return channel names; missing ones are empty."""
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list):
        return None
    names = [str(channel.get("label") or "") if isinstance(channel, dict) else "" for channel in channels]
    return (*names, *[""] * count)[:count] if any(names) else None
