"""Layouts of OME-TIFF: every order, oddities of the XML, pyramids, renamed files, images in several files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tifffile
from numpy.typing import NDArray

from conformance.layout import COLOUR, CYX, GREY, HYPER, MOVIE, RGB, STACK, TWO, Layout, X, Y
from cytoray_analysis.selection import Selection

_SIZED = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "\u00b5m", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "\u00b5m"}
YX_SIZE = {"Y": 0.25, "X": 0.5}
NAMES = ("DNA", "actin")
_NAMED: dict[str, Any] = {"axes": "CYX", "Channel": {"Name": list(NAMES)}}


def description_of(path: Path) -> str:
    """Return the description of the first page of a TIFF file."""
    return str(tifffile.tiffcomment(path))


def _same(xml: str) -> str:
    return xml


def ome(
    array: NDArray[Any],
    expected: NDArray[Any],
    axes: str,
    metadata: dict[str, Any],
    *,
    edit: Callable[[str], str] = _same,
    rename: str = "",
    options: dict[str, Any] | None = None,
    **facts: Any,
) -> Layout:
    """Return the layout of an OME-TIFF that tifffile writes, whose XML is edited, and which may be renamed."""

    def write(folder: Path) -> Path:
        path = folder / "image.ome.tif"
        tifffile.imwrite(path, array, ome=True, metadata=metadata, **(options or {}))
        xml = description_of(path)
        if edit(xml) != xml:
            tifffile.tiffcomment(path, edit(xml).encode())
        else:
            assert edit is _same, "the edit changes nothing"
        return path.rename(folder / rename) if rename else path

    return Layout(write, expected, axes, **facts)


def _sized(edit: Callable[[str], str], **facts: Any) -> Layout:
    return ome(GREY, GREY, "YX", {"axes": "YX", **_SIZED}, edit=edit, **facts)


def _unit(unit: str) -> Layout:
    return _sized(lambda xml: xml.replace("\u00b5m", unit), pixel_size=YX_SIZE)


OME: dict[str, Layout] = {
    "OME": ome(TWO, TWO, "CYX", {**_NAMED, **_SIZED}, channels=NAMES, pixel_size=YX_SIZE),
}
for _order in ("TCZYX", "TZCYX", "CTZYX", "ZTCYX", "CZTYX", "ZCTYX"):
    _moved = HYPER.transpose(*["TCZ".index(axis) for axis in _order[:3]], 3, 4)
    OME[f"OME in the order {_order}"] = ome(_moved, HYPER, "TCZYX", {"axes": _order})
for _name in ("um", "micron", "\u03bcm"):
    OME[f"OME unit {_name!a}"] = _unit(_name)

_IN_NANOMETRES = {
    "PhysicalSizeX": 500,
    "PhysicalSizeXUnit": "nm",
    "PhysicalSizeY": 250,
    "PhysicalSizeYUnit": "nm",
}
OME |= {
    "OME in nanometres": ome(GREY, GREY, "YX", {"axes": "YX", **_IN_NANOMETRES}, pixel_size=YX_SIZE),
    "OME of size 0": _sized(lambda xml: xml.replace('PhysicalSizeX="0.5"', 'PhysicalSizeX="0"')),
    "OME of a size that is no number": _sized(lambda xml: xml.replace('PhysicalSizeX="0.5"', 'PhysicalSizeX="NaN"')),
    "OME of an unknown unit": _sized(lambda xml: xml.replace("\u00b5m", "furlong")),
    "OME with an odd date": _sized(
        lambda xml: xml.replace("<Pixels", "<AcquisitionDate>yesterday</AcquisitionDate><Pixels", 1),
        pixel_size=YX_SIZE,
    ),
    "OME with unknown elements": _sized(
        lambda xml: xml.replace("<Pixels", "<Surprise a='1'/><Pixels", 1), pixel_size=YX_SIZE
    ),
    "OME with an order of four letters": ome(
        STACK,
        STACK,
        "ZYX",
        {"axes": "ZYX"},
        edit=lambda xml: re.sub(r'DimensionOrder="(XY..)."', r'DimensionOrder="\1"', xml),
    ),
    "OME with names for some channels": ome(
        TWO,
        TWO,
        "CYX",
        _NAMED,
        edit=lambda xml: xml.replace(' Name="actin"', ""),
        channels=("DNA", "channel 1"),
    ),
    "OME without channels": ome(
        TWO,
        TWO,
        "CYX",
        _NAMED,
        edit=lambda xml: re.sub(r"<Channel\b[^>]*?(/>|>.*?</Channel>)", "", xml, flags=re.DOTALL),
    ),
    "OME of RGB": ome(COLOUR, CYX, "CYX", {"axes": "YXS"}, options={"photometric": "rgb"}, channels=RGB),
    "OME that was renamed": ome(STACK, STACK, "ZYX", {"axes": "ZYX"}, rename="another name.tif"),
    "OME BigTIFF with tiles": ome(TWO, TWO, "CYX", {"axes": "CYX"}, options={"bigtiff": True, "tile": (16, 16)}),
}


def _pyramid(folder: Path) -> Path:
    path = folder / "image.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(TWO, subifds=1, metadata={"axes": "CYX"}, tile=(16, 16))
        writer.write(TWO[:, ::2, ::2], subfiletype=1, tile=(16, 16))
    return path


def _stopped(folder: Path) -> Path:
    path = folder / "image.ome.tif"
    tifffile.imwrite(path, MOVIE, ome=True, metadata={"axes": "TYX"}, contiguous=False)
    xml = description_of(path).replace('SizeT="6"', 'SizeT="9"').replace('PlaneCount="6"', 'PlaneCount="9"')
    tifffile.tiffcomment(path, xml.encode())
    return path


def _several_images(folder: Path) -> Path:
    path = folder / "image.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(STACK, metadata={"axes": "ZYX", "Name": "left"})
        writer.write(TWO, metadata={**_NAMED, "Name": "right", **_SIZED})
    return path


UUIDS = [f"urn:uuid:00000000-0000-0000-0000-00000000000{number}" for number in range(2)]


def _described(uuid: str, planes: str) -> str:
    """Return OME-XML of two channels whose planes are somewhere."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="{uuid}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="{X}" '
        f'SizeY="{Y}" SizeC="2" SizeZ="1" SizeT="1"><Channel ID="Channel:0:0" Name="DNA"/>'
        f'<Channel ID="Channel:0:1" Name="actin"/>{planes}</Pixels></Image></OME>'
    )


def planes_in_parts() -> str:
    """Return where the planes of two channels lie: the first in one file, the second in another."""
    return "".join(
        f'<TiffData FirstC="{number}" IFD="0" PlaneCount="1"><UUID FileName="part{number}.ome.tif">{uuid}</UUID>'
        "</TiffData>"
        for number, uuid in enumerate(UUIDS)
    )


def several_files(folder: Path) -> Path:
    """Write an image of two channels in two files."""
    for number, uuid in enumerate(UUIDS):
        xml = _described(uuid, planes_in_parts())
        tifffile.imwrite(folder / f"part{number}.ome.tif", TWO[number], description=xml.encode(), metadata=None)
    return folder / "part0.ome.tif"


def _companion(folder: Path) -> Path:
    for number, uuid in enumerate(UUIDS):
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="{uuid}"><BinaryOnly MetadataFile="image.companion.ome" UUID="urn:uuid:9"/></OME>'
        )
        tifffile.imwrite(folder / f"part{number}.ome.tif", TWO[number], description=xml.encode(), metadata=None)
    whole = _described("urn:uuid:9", planes_in_parts())
    (folder / "image.companion.ome").write_text(whole, encoding="utf-8")
    return folder / "part0.ome.tif"


OME |= {
    "OME of a pyramid": Layout(_pyramid, TWO, "CYX"),
    "OME of a stopped acquisition": Layout(_stopped, MOVIE, "TYX", warnings=frozenset({"frames-missing"})),
    "OME of several images, one chosen": Layout(
        _several_images, TWO, "CYX", NAMES, YX_SIZE, selection=Selection(series="right")
    ),
    "OME of several images, the first by its number": Layout(
        _several_images, STACK, "ZYX", selection=Selection(series="0")
    ),
    "OME of several files": Layout(several_files, TWO, "CYX", NAMES, other_file="part1.ome.tif"),
    "OME of several files, a channel that is here": Layout(
        several_files, TWO[0], "YX", NAMES[:1], selection=Selection(channel=("DNA",))
    ),
    "OME with a companion": Layout(_companion, TWO, "CYX", NAMES, other_file="image.companion.ome"),
}
