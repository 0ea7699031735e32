"""Images of which something is not there, with what the error must name and a choice that avoids the hole."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from conformance.handmade import LONG, page, tiff_of
from conformance.layout import GREY, HYPER, STACK, TWO
from conformance.ome import NAMES, description_of, several_files
from conformance.stores import store, zipped
from cytoray_analysis.selection import Selection


@dataclass(frozen=True, eq=False)
class Hole:
    """An image that is not all there.

    Attributes
    ----------
    write
        Writes it into a folder and returns what is to be read.
    named
        A pattern of what the error says.
    axes
        Of the whole image.
    avoiding
        A choice of what is there; None where there is none.
    array
        What that choice gives.
    """

    write: Callable[[Path], Path]
    named: str
    axes: str
    avoiding: Selection | None = None
    array: NDArray[Any] | None = None


def _without_planes(array: NDArray[Any], axes: str, lacking: set[int]) -> Callable[[Path], Path]:
    """Write an OME-TIFF whose metadata announce planes that were left out."""

    def write(folder: Path) -> Path:
        path = folder / "image.ome.tif"
        planes = array.reshape(-1, *array.shape[-2:])
        kept = [number for number in range(len(planes)) if number not in lacking]
        tifffile.imwrite(path, array, ome=True, metadata={"axes": axes})
        xml = description_of(path)
        outer = array.shape[:-2]
        data = ""
        for place, number in enumerate(kept):
            first = " ".join(
                f'First{axis}="{index}"' for axis, index in zip(axes, np.unravel_index(number, outer), strict=False)
            )
            data += f'<TiffData {first} IFD="{place}" PlaneCount="1"/>'
        xml = re.sub(r"<TiffData.*?(</TiffData>|/>)", data, xml, count=1, flags=re.DOTALL)
        with tifffile.TiffWriter(path) as writer:
            for place, number in enumerate(kept):
                text = xml.encode() if not place else None
                writer.write(planes[number], description=text, metadata=None, contiguous=False)
        return path

    return write


def _without_second_file(folder: Path) -> Path:
    path = several_files(folder)
    (folder / "part1.ome.tif").unlink()
    return path


def _renamed_both(folder: Path) -> Path:
    path = several_files(folder)
    (folder / "part1.ome.tif").rename(folder / "b.tif")
    return path.rename(folder / "a.tif")


def _empty_strip(folder: Path) -> Path:
    path = folder / "image.tif"
    rows = [GREY[start : start + 10].tobytes() for start in range(0, len(GREY), 10)]
    whole = page(GREY.shape, t278=(LONG, [10]))
    path.write_bytes(tiff_of([(whole, rows), (whole, [*rows[:2], b"", rows[3]])]))
    return path


def _empty_strip_of_one(folder: Path) -> Path:
    path = folder / "image.tif"
    rows = [GREY[start : start + 10].tobytes() for start in range(0, len(GREY), 10)]
    path.write_bytes(tiff_of([(page(GREY.shape, t278=(LONG, [10])), [*rows[:2], b"", rows[3]])]))
    return path


def _without_chunks(version: int, pattern: str) -> Callable[[Path], Path]:
    """Write an OME-Zarr and remove the chunks of its largest level that match."""

    def write(folder: Path) -> Path:
        path = store(STACK, "ZYX", version)(folder)
        chunks = [
            file
            for file in (path / "0").rglob("*")
            if file.is_file() and file.name not in ("zarr.json", ".zarray", ".zattrs")
        ]
        gone = [
            file
            for file in chunks
            if re.fullmatch(pattern, file.relative_to(path / "0").as_posix().removeprefix("c/").replace("/", "."))
        ]
        assert gone
        for file in gone:
            file.unlink()
        return path

    return write


def _zipped(write: Callable[[Path], Path]) -> Callable[[Path], Path]:
    return lambda folder: zipped(write(folder), folder / "zipped.zip")


def _without_level(folder: Path) -> Path:
    path = store(STACK, "ZYX", 5)(folder)
    shutil.rmtree(path / "0")
    return path


_FIRST = Selection(plane="0")
HOLES: dict[str, Hole] = {
    "an OME plane in the middle": Hole(
        _without_planes(STACK, "ZYX", {2}), r"Z=2\b.*is missing", "ZYX", Selection(plane="3"), STACK[3]
    ),
    "an OME channel of one time point": Hole(
        _without_planes(HYPER[:, :, 0], "TCYX", {3}),
        r"T=1, C=1\b.*is missing",
        "TCYX",
        Selection(frame="2"),
        HYPER[2, :, 0],
    ),
    "a second file": Hole(_without_second_file, r"C=1.*part1\.ome\.tif", "CYX", Selection(channel=NAMES[:1]), TWO[0]),
    "several files that were renamed": Hole(
        _renamed_both, r"C=1.*part1\.ome\.tif", "CYX", Selection(channel=NAMES[:1]), TWO[0]
    ),
    "a strip of no bytes in the second page": Hole(_empty_strip, r"=1 lacks strip 2", "ZYX", _FIRST, GREY),
    "a strip of no bytes": Hole(_empty_strip_of_one, r"lacks strip 2", "YX"),
    "the array of the largest level": Hole(_without_level, r"array of its level '0', found none", "ZYX"),
}
for _version in (4, 5):
    _ngff = f"OME-Zarr 0.{_version}"
    HOLES |= {
        f"a chunk of {_ngff}": Hole(
            _without_chunks(_version, r"3\.1\.1"), r"chunk \S*3[./]1[./]1 ", "ZYX", _FIRST, STACK[0]
        ),
        f"a chunk at the corner of {_ngff}": Hole(
            _without_chunks(_version, r"3\.0\.0"), r"chunk \S*3[./]0[./]0 ", "ZYX", _FIRST, STACK[0]
        ),
        f"all chunks of a plane of {_ngff}": Hole(
            _without_chunks(_version, r"4\..*"), r"chunk \S*4[./]0[./]0 ", "ZYX", _FIRST, STACK[0]
        ),
        f"all chunks of {_ngff}": Hole(_without_chunks(_version, r".*"), r"chunk \S*0[./]0[./]0 ", "ZYX"),
        f"a chunk of zipped {_ngff}": Hole(
            _zipped(_without_chunks(_version, r"3\.1\.1")), r"chunk \S*3[./]1[./]1 ", "ZYX", _FIRST, STACK[0]
        ),
    }
