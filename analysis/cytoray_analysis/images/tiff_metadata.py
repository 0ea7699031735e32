"""Pixel size and channel names in TIFF files without OME metadata."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cytoray_analysis.answer_warnings import Warnings
from cytoray_analysis.images.axes import micrometres
from cytoray_analysis.images.ome_xml import number

# Screens and printers write 72 to 1200 dots per inch (21 µm and more) into files whose real pixel size is unknown, in
# centimetres too.
_COARSEST_CREDIBLE_PIXEL = 20.0
_CENTIMETRES = 3
_ESCAPE = re.compile(r"\\u([0-9A-Fa-f]{4})")
# ImageJ puts such a part before the label of a plane in a hyperstack.
_POSITION = re.compile(r"^((c|z|t|ch|slice|frame|channel)\s*:?\s*\d+(\s*/\s*\d+)?[\s;,]*)+(-\s*)?", re.IGNORECASE)
_MPP = re.compile(r"\bMPP\s*=\s*([\d.,]+)")

Metadata = tuple[tuple[str, ...] | None, Mapping[str, float | None], Warnings]


def plain_metadata(file: Any, page: Any, axes: str, shape: Sequence[int]) -> Metadata:
    """Return channel names, pixel size in micrometres by axis, and what could not be read.

    Parameters
    ----------
    file
        An open :class:`tifffile.TiffFile`.
    page
        Its first page.
    axes, shape
        Of the image that the page belongs to.
    """
    if file.is_imagej:
        metadata = file.imagej_metadata or {}
        return _slice_labels(metadata, axes, shape), _imagej_sizes(metadata, page), ()
    if file.is_lsm:
        return None, _lsm_sizes(file.lsm_metadata or {}), ()
    found = _MPP.search(str(page.description or "")) if file.is_svs else None
    if found is not None:
        size = micrometres(number(found[1]), "\u00b5m")
        return None, {"Y": size, "X": size}, ()
    return None, _resolution(page), ()


def _imagej_sizes(metadata: Mapping[str, Any], page: Any) -> dict[str, float | None]:
    """ImageJ writes pixels per unit into the resolution tags, and the unit into its description.

    ImageJ takes inches from the dots per inch of a picture; they are not a measurement.
    """
    unit = _unit(metadata.get("unit"))
    units = {axis: _unit(metadata.get(f"{axis.lower()}unit")) or unit for axis in "ZYX"}
    sizes = {axis: _length(page, axis, units[axis]) for axis in "YX"}
    return {"Z": _in_micrometres(number(metadata.get("spacing")), units["Z"]), **sizes}


def _unit(text: Any) -> str | None:
    if text is None:
        return None
    plain = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), str(text)).strip().strip('"')
    return plain or None


def _in_micrometres(value: float | None, unit: str | None) -> float | None:
    return None if unit is None or unit.lower() in ("inch", "inches", "in") else micrometres(value, unit)


def _resolution(page: Any) -> dict[str, float | None]:
    """Pixel size by the resolution tags in centimetres; dots per inch are for printing."""
    if _value(page, "ResolutionUnit") != _CENTIMETRES:
        return {}
    sizes = {axis: _length(page, axis, "cm") for axis in "YX"}
    return {axis: size if size and size <= _COARSEST_CREDIBLE_PIXEL else None for axis, size in sizes.items()}


def _length(page: Any, axis: str, unit: str | None) -> float | None:
    value = _value(page, f"{axis}Resolution")
    if isinstance(value, tuple) and len(value) == 2:
        above, below = (number(part) for part in value)
        per_unit = above / below if above is not None and below else None
    else:
        per_unit = number(value)
    if not per_unit or not math.isfinite(per_unit):
        return None
    return _in_micrometres(1.0 / per_unit, unit)


def _value(page: Any, name: str) -> Any:
    """Return the value of a tag of any legal type; None where there is none."""
    tag = page.tags.get(name)
    if tag is None:
        return None
    value = tag.value
    if isinstance(value, bytes | str):
        return None
    if isinstance(value, tuple) and len(value) == 1:
        return value[0]
    return int(value) if name == "ResolutionUnit" and number(value) is not None else value


def _lsm_sizes(metadata: Mapping[str, Any]) -> dict[str, float | None]:
    return {axis: micrometres(number(metadata.get(f"VoxelSize{axis}")), "m") for axis in "ZYX"}


def _slice_labels(metadata: Mapping[str, Any], axes: str, shape: Sequence[int]) -> tuple[str, ...] | None:
    """Return the label that all planes of a channel share, without the position that ImageJ puts before it."""
    labels = metadata.get("Labels")
    if not isinstance(labels, list) or "C" not in axes:
        return None
    outer = [(axis, length) for axis, length in zip(axes, shape, strict=True) if axis in "TZC"]
    count = dict(outer)["C"]
    # ImageJ numbers planes with the channel fastest, then Z, then T.
    if len(labels) not in (math.prod(length for _, length in outer), count):
        return None
    names = []
    for channel in range(count):
        found = {_POSITION.sub("", str(label or "").split("\n")[0]).strip() for label in labels[channel::count]}
        names.append(found.pop() if len(found) == 1 else "")
    return tuple(names) if any(names) and len(set(names)) == count else None
