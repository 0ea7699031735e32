"""Writing images and label images so that axes, channel names and pixel size come back when they are read.

Files are written atomically: under another name in the same folder, and then moved. An OME-Zarr folder that is filled
region by region (:func:`create_zarr`) is the exception.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cytoray_analysis.errors import ImageError, RequestError
from cytoray_analysis.files import whole_path, write_whole
from cytoray_analysis.images.axes import AXES
from cytoray_analysis.images.image import Image, image_from_array
from cytoray_analysis.images.label_values import MOST_OBJECTS, as_labels
from cytoray_analysis.images.reader import read_image

_CHUNK = 1024
_AXIS_TYPES = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}


def smallest_label_type(largest: int) -> np.dtype[Any]:
    """Return uint16 when it holds `largest`, else uint32."""
    return np.dtype(np.uint16 if largest <= np.iinfo(np.uint16).max else np.uint32)


def write_labels(
    path: str | Path,
    labels: np.ndarray,
    *,
    pixel_size: Mapping[str, float] | None = None,
    axes: str | None = None,
) -> None:
    """Write an instance label image.

    Parameters
    ----------
    path
        The suffix decides the format: ``.ome.tif``, ``.tif`` (deflate-compressed), ``.png`` (2D, 16 bit) or
        ``.ome.zarr``.
    labels
        Integers ``(Y, X)`` or ``(Z, Y, X)``, 0 for background. Stored as uint16 where that holds the largest label. Up
        to 65,535 objects with larger labels are renumbered from 1 in the same order, and their original labels are
        written next to them as ``NAME.numbers.csv`` (columns ``number,label``). More objects are stored as uint32.
    pixel_size
        Micrometres per pixel along each axis, when known.
    axes
        Of the labels where they are others than these, such as ``TYX``.

    Raises
    ------
    ImageError
        When the labels are negative, not integers, or the objects are too many for the format.
    RequestError
        When the suffix names no format for labels.
    """
    place = Path(path)
    if labels.dtype.kind not in "bui" or (axes is None and labels.ndim not in (2, 3)):
        raise ImageError(f"expected integer labels (Y, X) or (Z, Y, X), got {labels.dtype} of shape {labels.shape}")
    if labels.size and int(labels.min()) < 0:
        raise ImageError(f"expected labels of at least 0, got {int(labels.min())}")
    labels, names = _fitting(labels)
    largest = int(labels.max()) if labels.size else 0
    stored = labels.astype(smallest_label_type(largest), copy=False)
    image = image_from_array(stored, axes or AXES[-labels.ndim :], pixel_size=pixel_size, channels=("labels",))
    if place.suffix.lower() == ".png":
        if labels.ndim != 2 or stored.dtype != np.uint16:
            raise ImageError(
                f"{place}: expected 2D labels up to 65535 for PNG, got {labels.ndim} axes and labels up to {largest}",
                hint="write .ome.tif instead",
            )
        import imageio.v3

        with whole_path(place, durable=False) as temporary:
            imageio.v3.imwrite(temporary, stored, extension=".png", plugin="pillow")
    else:
        write_image(place, image)
    if names is not None:
        write_numbers(place.with_name(f"{place.name}.numbers.csv"), names)


def write_numbers(path: Path, names: np.ndarray) -> None:
    """Write what renumbered labels stand for: ``number,label``, a row each; `names` has them from number 1 on."""
    rows = (f"{number},{label}\n" for number, label in enumerate(names.tolist(), start=1))
    write_whole(path, "number,label\n" + "".join(rows))


def _fitting(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Renumber labels above 16 bits if their number fits into 16 bits; also return the original labels."""
    if not labels.size or int(labels.max()) <= MOST_OBJECTS:
        return labels, None
    import fastremap

    names = fastremap.unique(labels)
    names = names[names > 0]
    if len(names) > MOST_OBJECTS and int(labels.max()) <= np.iinfo(np.uint32).max:
        return labels, None
    return (np.searchsorted(names, labels) + 1) * (labels > 0), names


def write_image(path: str | Path, image: Image) -> None:
    """Write an image with its axes, channel names and pixel size.

    Parameters
    ----------
    path
        The suffix decides the format: ``.ome.tif`` or ``.ome.tiff``, ``.tif`` or ``.tiff`` (axes and pixel size in
        tifffile's and the TIFF's own tags; no channel names), ``.ome.zarr`` or ``.zarr``.
    image
        TIFF formats hold it in memory while writing; OME-Zarr is written plane by plane, region by region.

    Raises
    ------
    RequestError
        When the suffix names no format.
    """
    place = Path(path)
    name = place.name.lower()
    if name.endswith((".ome.tif", ".ome.tiff")):
        with whole_path(place, durable=False) as temporary:
            _write_ome_tiff(temporary, image)
    elif name.endswith((".tif", ".tiff")):
        with whole_path(place, durable=False) as temporary:
            _write_tiff(temporary, image)
    elif name.endswith(".zarr"):
        with whole_path(place, durable=False) as temporary:
            array = _create_zarr(temporary, image)
            for region in _regions(image.shape, array.chunks):
                array[region] = image.read(region)
    else:
        raise RequestError(
            f"expected a file name with a known format, got {place.name!r}",
            hint="use a name that ends in .ome.tif, .tif or .ome.zarr (labels: also .png)",
        )


def create_zarr(
    path: str | Path,
    axes: str,
    shape: Sequence[int],
    *,
    dtype: Any,
    chunks: Sequence[int],
    channels: Sequence[str] | None = None,
    pixel_size: Mapping[str, float] | None = None,
) -> Any:
    """Create an empty image in OME-Zarr (NGFF 0.5), to be filled region by region.

    Parameters
    ----------
    path
        The folder; one that is there already is replaced.
    axes
        Such as ``"YX"`` or ``"CZYX"``.
    shape
        Length of each axis.
    dtype
        Of the pixels.
    chunks
        Length of a chunk along each axis; fill along chunk borders to write each chunk once.
    channels
        One name per entry of ``C``.
    pixel_size
        Micrometres per pixel along each axis, when known.

    Returns
    -------
    zarr.Array
        All zero.
    """
    place = Path(path)
    if place.exists():
        shutil.rmtree(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    blank = np.broadcast_to(np.zeros(1, dtype), tuple(shape))
    image = image_from_array(blank, axes, pixel_size=pixel_size, channels=channels)
    return _create_zarr(place, image, tuple(min(c, n) for c, n in zip(chunks, shape, strict=True)))


def read_labels(path: str | Path) -> np.ndarray:
    """Read an integer label image.

    Parameters
    ----------
    path
        Any format that :func:`read_image` reads.

    Returns
    -------
    numpy.ndarray
        ``(Y, X)`` or ``(Z, Y, X)`` of the file's own integer type, or of a wide one for real numbers that are whole;
        0 is background.

    Raises
    ------
    ImageError
        When the file is lossy, such as JPEG, or its numbers are not whole, negative, above 2⁵³, or have channels or
        times.
    """
    return check_labels(read_image(Path(path), labels=True))


def check_labels(image: Image) -> np.ndarray:
    """Decode an image as labels, or raise; see :func:`read_labels`."""
    if image.axes not in ("YX", "ZYX"):
        raise ImageError(
            f"{image.source}: expected a label image with axes YX or ZYX, got {image.axes} of shape {image.shape}",
            hint="store one integer per pixel: the number of the object, 0 for background",
        )
    return as_labels(image.read(), image.source)


def _write_ome_tiff(path: Path, image: Image) -> None:
    from bioio_base.types import PhysicalPixelSizes
    from bioio_ome_tiff.writers import OmeTiffWriter

    sizes = image.pixel_size or {}
    pixels = image.read()
    OmeTiffWriter.save(
        pixels.astype(np.uint8) if pixels.dtype.kind == "b" else pixels,
        str(path),
        dim_order=image.axes,
        channel_names=list(image.channels),
        physical_pixel_sizes=PhysicalPixelSizes(sizes.get("Z"), sizes.get("Y"), sizes.get("X")),
        tifffile_kwargs={"compression": "deflate", "predictor": pixels.dtype.kind in "ui"},
    )


def _write_tiff(path: Path, image: Image) -> None:
    import tifffile

    sizes = image.pixel_size
    resolution: dict[str, Any] = (
        {"resolution": (1e4 / sizes["X"], 1e4 / sizes["Y"]), "resolutionunit": "CENTIMETER"} if sizes else {}
    )
    pixels = image.read()
    tifffile.imwrite(
        path,
        pixels.astype(np.uint8) if pixels.dtype.kind == "b" else pixels,
        compression="deflate",
        predictor=pixels.dtype.kind in "ui",
        photometric="minisblack",
        metadata={"axes": image.axes},
        **resolution,
    )


def _create_zarr(path: Path, image: Image, chunks: tuple[int, ...] | None = None) -> Any:
    from bioio_ome_zarr.writers import Channel, OMEZarrWriter

    sizes = image.pixel_size or {}
    sides = {"Y": _CHUNK, "X": _CHUNK}
    writer = OMEZarrWriter(
        store=str(path),
        level_shapes=image.shape,
        dtype=image.dtype,
        chunk_shape=chunks or tuple(min(sides.get(a, 1), n) for a, n in zip(image.axes, image.shape, strict=True)),
        zarr_format=3,
        channels=[Channel(label=name, color="FFFFFF") for name in image.channels],
        axes_names=[axis.lower() for axis in image.axes],
        axes_types=[_AXIS_TYPES[axis] for axis in image.axes],
        axes_units=["micrometer" if axis in sizes else None for axis in image.axes],
        physical_pixel_size=[sizes.get(axis, 1.0) for axis in image.axes],
    )
    import zarr

    # A missing chunk could not be distinguished from one lost by an incomplete copy.
    with zarr.config.set({"array.write_empty_chunks": True}):
        writer.initialize()
        return writer.datasets[0]


def _regions(shape: Sequence[int], chunks: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    for corner in np.ndindex(*(-(-length // chunk) for length, chunk in zip(shape, chunks, strict=True))):
        yield tuple(
            slice(place * chunk, min((place + 1) * chunk, length))
            for place, chunk, length in zip(corner, chunks, shape, strict=True)
        )
