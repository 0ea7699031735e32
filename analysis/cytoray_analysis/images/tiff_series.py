"""The images in a TIFF file: their axes, and the location of each plane.

OME metadata are read here (:mod:`cytoray_analysis.images.ome_xml`), because a plane that they announce and that is not
there must be an error, not black. What else writers of TIFF files say about axes is tifffile's to know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cytoray_analysis.answer_warnings import Warnings
from cytoray_analysis.images.series import SeriesInfo


@dataclass(frozen=True)
class PageAt:
    """Location of a page.

    Attributes
    ----------
    offset
        Of its directory in bytes; of a file whose pages tifffile corrects, its place in the series.
    file
        Another file than the one that was opened; empty for that one.
    doubt
        Why it is not known that this page is the plane's; empty where nothing speaks against it.
    """

    offset: int
    file: str = ""
    doubt: str = ""


@dataclass(frozen=True, eq=False)
class TiffSeries:
    """One image of a TIFF file.

    Attributes
    ----------
    info
        Name, axes and shape; the axes of pages come last.
    dtype
        Of the stored samples.
    keyframe
        The first page that is there, as tifffile reads it.
    pages
        One entry for each combination of the outer axes, in C order; None for a plane that is not there.
    block
        Offset of the first byte where all planes follow each other without directories of their own.
    corrected
        Number of the series whose pages tifffile corrects; None where pages are read by their offset.
    missing
        Why planes are not there, for the error.
    guessed_axes
        Whether the file does not say what its planes are.
    channels, pixel_size
        As far as the file says them.
    warnings
        What was assumed or left out.
    """

    info: SeriesInfo
    dtype: np.dtype[Any]
    keyframe: Any
    pages: tuple[PageAt | None, ...] = ()
    block: int | None = None
    corrected: int | None = None
    missing: str = ""
    guessed_axes: bool = False
    channels: tuple[str, ...] | None = None
    pixel_size: Mapping[str, float | None] = field(default_factory=dict)
    warnings: Warnings = ()


def page_at(file: Any, place: PageAt, files: dict[str, Any] | None = None) -> Any:
    """Read a page of an open file, or of another file that it names.

    Parameters
    ----------
    files
        Other files that are open; one that is not is opened, and added.
    """
    from tifffile import TiffFile, TiffPage

    if place.file:
        if files is None:
            with TiffFile(place.file, is_ome=False) as other:
                return page_at(other, PageAt(place.offset))
        if place.file not in files:
            files[place.file] = TiffFile(place.file, is_ome=False)
        file = files[place.file]
    file.filehandle.seek(place.offset)
    return TiffPage(file, index=0)
