"""The forms of a label image."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from cytoray_analysis.errors import NotAcceptableError
from cytoray_analysis.images import AXES
from cytoray_serving.answers.form import (
    ARROW,
    Form,
    arrow_bytes,
    channels_chosen,
    csv_bytes,
    known,
    model_answered,
    require_plane,
    warning_rows,
)
from cytoray_serving.answers.kind import FREE, AnswerKind, Arrays, Progress
from cytoray_serving.answers.polygons import Outline, trace_outlines
from cytoray_serving.schema import FeatureCollection, ObjectRow, ObjectTable, box_sides

if TYPE_CHECKING:
    from cytoray_analysis.images import Image
    from cytoray_analysis.predictor import Prediction, Predictor
    from cytoray_analysis.selection import Selection

Labels = NDArray[np.integer[Any]]
_ENTRY = {"T": "frame", "Z": "plane"}


def label_tiff(prediction: Prediction) -> bytes:
    """Encode labels as a TIFF: uint16 if they fit, otherwise uint32; the pixel size becomes its resolution."""
    import tifffile

    labels: Labels = prediction.answer
    buffer = io.BytesIO()
    pixel_size = prediction.image.pixel_size or {}
    options: dict[str, Any] = {}
    if "Y" in pixel_size and "X" in pixel_size:
        per_centimetre = (1e4 / pixel_size["X"], 1e4 / pixel_size["Y"])
        options = {"resolution": per_centimetre, "resolutionunit": "CENTIMETER"}
    if labels.ndim > 2:
        options["metadata"] = {"axes": prediction.axes}
    # Level 1 of deflate: measured at one megapixel, 7 ms to write, and 25 times fewer bytes to send than raw labels.
    tifffile.imwrite(
        buffer,
        _smallest_unsigned(labels),
        compression="zlib",
        compressionargs={"level": 1},
        photometric="minisblack",
        **options,
    )
    return buffer.getvalue()


def label_png(prediction: Prediction) -> bytes:
    """Encode labels as a 16-bit grey PNG."""
    import imagecodecs

    labels: Labels = prediction.answer
    require_plane(labels.shape, "a PNG")
    if labels.size and labels.max() > np.iinfo(np.uint16).max:
        raise NotAcceptableError(
            f"expected at most 65535 objects for a 16-bit PNG, got labels up to {labels.max()}",
            field="Accept",
            hint="request image/tiff",
        )
    return bytes(imagecodecs.png_encode(labels.astype(np.uint16), level=1))


def object_table(prediction: Prediction) -> bytes:
    """Encode labels as a JSON table of objects, see :class:`cytoray_serving.schema.ObjectTable`."""
    labels: Labels = prediction.answer
    table = ObjectTable(
        model=model_answered(prediction),
        warnings=warning_rows(prediction),
        channels=channels_chosen(prediction.image),
        axes=prediction.axes,
        shape=list(labels.shape),
        seconds=dict(prediction.seconds),
        objects=object_rows(labels, _channels(prediction), prediction.confidence, axes=prediction.axes),
    )
    return table.model_dump_json().encode()


def object_rows(
    labels: Labels,
    pixels: NDArray[Any] | None = None,
    confidence: NDArray[np.floating[Any]] | None = None,
    *,
    axes: str | None = None,
) -> list[ObjectRow]:
    """Measure area, centroid, bounding box and brightness of every object, one row per label, in order.

    Sums over all pixels at once instead of a loop over objects: 30 times faster than ``regionprops_table``, which the
    CSV form uses for its many measurements.

    Parameters
    ----------
    labels
        Integers, spatial axes; 0 is background.
    pixels
        (C, spatial…) to measure brightness on.
    confidence
        (highest label + 1,) confidence of each object, by its number.
    axes
        Axes of the labels; by default the last ones of ``"ZYX"``.
    """
    from scipy.ndimage import find_objects

    named = axes or "ZYX"[-labels.ndim :]
    places = np.nonzero(labels)
    values = labels[places]
    areas = np.bincount(values)
    sums = [np.bincount(values, weights=place) for place in places]
    light = [np.bincount(values, weights=channel[places]) for channel in (() if pixels is None else pixels)]
    boxes = {
        number: ([part.start for part in place], [part.stop for part in place])
        for number, place in enumerate(find_objects(labels), start=1)
        if place is not None
    }
    return [
        ObjectRow(
            label=number,
            area=areas[number],
            centroid=[total[number] / areas[number] for total in sums],
            **box_sides(*boxes[number], named),
            bbox=[*boxes[number][0], *boxes[number][1]],
            intensity_mean=None if pixels is None else [total[number] / areas[number] for total in light],
            confidence=None if confidence is None else float(confidence[number]),
        )
        for number in np.flatnonzero(areas).tolist()
    ]


def measurements(prediction: Prediction) -> dict[str, Any]:
    """Return the columns of :func:`cytoray_analysis.object_table.measure_objects`.

    Objects of planes or frames that were predicted one by one are measured there; their number is the first column.
    """
    from cytoray_analysis.object_table import measure_objects

    labels: Labels = prediction.answer
    image, pixels = prediction.image, _channels(prediction)
    tables = []
    for place in np.ndindex(labels.shape[: len(prediction.stacked)]):
        table = measure_objects(
            labels[place],
            None if pixels is None else pixels[(slice(None), *place)],
            image.pixel_size,
            prediction.confidence,
            channels=image.channels,
        )
        count = len(table["label"])
        leading = {_ENTRY[axis]: np.full(count, at) for axis, at in zip(prediction.stacked, place, strict=True)}
        tables.append(leading | table)
    if len(tables) == 1:
        return tables[0]
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def feature_collection(prediction: Prediction) -> bytes:
    """Encode labels as GeoJSON, see :class:`cytoray_serving.schema.FeatureCollection`."""
    labels: Labels = prediction.answer
    require_plane(labels.shape, "GeoJSON")
    outlines = trace_outlines(labels)
    # Plain dictionaries: validating every corner of every polygon would take longer than tracing them.
    return to_json({"type": "FeatureCollection", "features": [_feature(outline) for outline in outlines]})


def _feature(outline: Outline) -> dict[str, Any]:
    alone = len(outline.polygons) == 1
    return {
        "type": "Feature",
        "geometry": {
            "type": "Polygon" if alone else "MultiPolygon",
            "coordinates": outline.polygons[0] if alone else outline.polygons,
        },
        "properties": {
            "objectType": "detection",
            "name": str(outline.label),
            "label": outline.label,
            "measurements": {"Area px^2": outline.area},
        },
    }


def picture_overlay(prediction: Prediction) -> bytes:
    """Encode the image, with stretched contrast and every object outlined, as an RGB PNG.

    A volume is shown from above: the maximum along Z, and the first object.
    """
    from cytoray_analysis.pictures import overlay, png_bytes
    from cytoray_serving.answers.display import picture

    labels: Labels = prediction.answer
    return png_bytes(overlay(picture(prediction.image), labels if labels.ndim == 2 else seen_from_above(labels)))


def seen_from_above(labels: Labels) -> Labels:
    """Return (Y, X): the first object in each column of a volume (Z, Y, X), or of frames of volumes."""
    volume = labels.reshape(-1, *labels.shape[-2:])
    first = (volume > 0).argmax(axis=0)
    seen: Labels = np.take_along_axis(volume, first[np.newaxis], axis=0)[0]
    return seen


def _channels(prediction: Prediction) -> NDArray[Any] | None:
    """Return the pixels (C, …) of the labels; None if the answer to a stack is one plane."""
    image, axes = prediction.image, prediction.axes
    if tuple(image.size(axis) for axis in axes) != prediction.answer.shape or image.spatial_shape != tuple(
        image.size(axis) for axis in axes if axis != "T"
    ):
        return None
    wanted = "".join(axis for axis in AXES if axis in axes or axis == "C")
    return np.moveaxis(image.select(wanted).read(), wanted.index("C"), 0)


def _smallest_unsigned(labels: Labels) -> NDArray[np.unsignedinteger[Any]]:
    fits = labels.max(initial=0) <= np.iinfo(np.uint16).max
    return labels.astype(np.uint16 if fits else np.uint32)


def arrays(prediction: Prediction) -> Arrays:
    """Return the labels and the confidence of each object."""
    return {
        "labels": prediction.answer.astype(np.int32, copy=False),
        "confidence": known(prediction.confidence),
    }


def summary(prediction: Prediction, megapixels: float) -> dict[str, float]:
    """Return objects per megapixel, the share of pixels they cover, their median area and mean confidence."""
    areas = np.bincount(prediction.answer.ravel())
    found = areas[1:][areas[1:] > 0]
    numbers = {
        "objects_per_megapixel": prediction.objects / megapixels,
        "covered": float(found.sum()) / max(1, prediction.answer.size),
    }
    if len(found):
        numbers["median_area"] = float(np.median(found))
    if prediction.confidence is not None and len(prediction.confidence) > 1:
        numbers["mean_confidence"] = float(prediction.confidence[1:].mean())
    return numbers


def write_zarr(path: Path, prediction: Prediction) -> None:
    """Write the labels as an OME-Zarr."""
    from cytoray_analysis.images.writer import write_labels

    write_labels(path, prediction.answer, axes=prediction.axes, pixel_size=prediction.image.pixel_size)


def _step(
    predictor: Predictor, image: Image, objects: Any, selection: Selection, progress: Progress | None
) -> tuple[Image, Any]:
    """Return the labels as the objects of the next model, and the image with their warnings."""
    from cytoray_analysis.each import predict_each
    from cytoray_analysis.inference.objects import segment

    if selection.each:
        stack = predict_each(predictor, image, selection)
        return image.warn(*stack.warnings), stack.answer
    found = segment(image, predictor, progress=progress)
    return image.warn(*found.warnings), found.labels


LABELS = AnswerKind(
    own=(
        Form("tif", "image/tiff", ".tif", label_tiff),
        Form("json", "application/json", ".json", object_table, schema=ObjectTable),
        Form("geojson", "application/geo+json", ".geojson", feature_collection, schema=FeatureCollection),
        Form("overlay", "image/png", ".overlay.png", picture_overlay),
        Form("png", "image/png; content=labels", ".png", label_png),
        Form("csv", "text/csv", ".csv", lambda prediction: csv_bytes(measurements(prediction))),
        Form("arrow", ARROW, ".arrows", lambda prediction: arrow_bytes(measurements(prediction))),
    ),
    arrays=arrays,
    tensors=lambda axes: {"labels": ("INT32", [FREE] * axes), "confidence": ("FP32", [FREE])},
    summary=summary,
    example="-o labels.tif --data-binary @image.tif",
    noun="object",
    write_zarr=write_zarr,
    step=_step,
)
