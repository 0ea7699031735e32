"""OME-XML of real files: valid parts are read even if others are wrong.

Open Microscopy Environment, OME Data Model 2016-06; Goldberg et al., Genome Biol 6, R47 (2005).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

from cytoray_analysis.images.axes import micrometres

_OUTER = "CZT"  # fastest first, where a file does not say
_MOST = 2**31


@dataclass(frozen=True)
class OmePlanes:
    """The location of some planes of an image: one TiffData element.

    Attributes
    ----------
    first
        Index along T, C and Z of the first plane, by axis.
    page
        The directory of the first plane in its file; None for the first.
    count
        Number of planes; None if not specified.
    file, uuid
        Name and identifier of the file, if specified.
    """

    first: Mapping[str, int]
    page: int | None
    count: int | None
    file: str | None
    uuid: str | None


@dataclass(frozen=True)
class OmeImage:
    """One image that OME metadata describe.

    Attributes
    ----------
    name
        May be empty.
    order
        T, C and Z, the one that changes fastest first.
    sizes
        Lengths of T, C and Z; C counts samples.
    channels
        Names, empty where there is none.
    pixel_size
        Micrometres per pixel by axis, None for unknown.
    planes
        Locations of the planes; empty if not specified.
    unsaid
        Which of T, C and Z have no valid length; it is set to 1.
    """

    name: str
    order: str
    sizes: Mapping[str, int]
    channels: tuple[str, ...]
    pixel_size: Mapping[str, float | None]
    planes: tuple[OmePlanes, ...]
    unsaid: str = ""


@dataclass(frozen=True)
class OmeDocument:
    """The content of OME metadata.

    Attributes
    ----------
    images
        In the order of the document.
    uuid
        Identifier of the file that the metadata are in.
    metadata_file
        The file with the metadata, if this one only refers to it.
    """

    images: tuple[OmeImage, ...]
    uuid: str | None = None
    metadata_file: str | None = None


def parse_ome(xml: str) -> OmeDocument | None:
    """Read OME-XML; None if the text is not XML, or not OME."""
    try:
        root = ElementTree.fromstring(xml)  # noqa: S314 - expat limits entity expansion; untrusted XML is not read
    except (ElementTree.ParseError, ValueError):
        return None
    if _name(root) != "OME":
        return None
    only = next((child for child in root if _name(child) == "BinaryOnly"), None)
    images = tuple(
        _image(element, pixels)
        for element in root
        if _name(element) == "Image"
        for pixels in element
        if _name(pixels) == "Pixels"
    )
    return OmeDocument(images, root.get("UUID"), None if only is None else only.get("MetadataFile"))


def _image(element: ElementTree.Element, pixels: ElementTree.Element) -> OmeImage:
    # Fastest first, without X and Y; missing axes follow.
    said = [axis for axis in pixels.get("DimensionOrder", "").upper() if axis in _OUTER]
    order = "".join(dict.fromkeys([*said, *_OUTER]))
    channels = [child for child in pixels if _name(child) == "Channel"]
    sizes = {axis: _whole(pixels.get(f"Size{axis}"), 1) for axis in _OUTER}
    return OmeImage(
        name=element.get("Name") or "",
        order=order,
        sizes={axis: size or 1 for axis, size in sizes.items()},
        channels=tuple(channel.get("Name") or channel.get("Fluor") or "" for channel in channels),
        pixel_size={
            axis: micrometres(
                number(pixels.get(f"PhysicalSize{axis}")), pixels.get(f"PhysicalSize{axis}Unit", "\u00b5m")
            )
            for axis in "ZYX"
        },
        planes=tuple(_planes(child) for child in pixels if _name(child) == "TiffData"),
        unsaid="".join(axis for axis, size in sizes.items() if size is None),
    )


def _planes(data: ElementTree.Element) -> OmePlanes:
    where = next((child for child in data if _name(child) == "UUID"), None)
    page = _whole(data.get("IFD"), 0) if "IFD" in data.attrib else None
    count = _whole(data.get("PlaneCount") or data.get("NumPlanes"), 1)
    return OmePlanes(
        first={axis: _whole(data.get(f"First{axis}"), 0) or 0 for axis in _OUTER},
        page=page,
        count=count if count is not None or page is None else 1,
        file=None if where is None else where.get("FileName"),
        uuid=None if where is None else (where.text or "").strip() or None,
    )


def number(text: object) -> float | None:
    """Parse a number with a decimal comma or point; None if invalid."""
    try:
        return float(str(text).strip().replace(",", "."))
    except ValueError:
        return None


def _whole(text: str | None, least: int) -> int | None:
    value = number(text) if text else None
    return int(value) if value is not None and least <= value < _MOST and value == int(value) else None


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
