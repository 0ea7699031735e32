"""Lists the images in a TIFF file: their axes, and the location of each plane.

OME metadata are read here (:mod:`cytoray_analysis.images.ome_xml`), because a plane that they announce and that is not
there must be an error, not black. What else writers of TIFF files say about axes is tifffile's to know.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cytoray_analysis.answer_warnings import AnswerWarning, Warnings
from cytoray_analysis.errors import ImageTooLargeError, UnreadableImageError
from cytoray_analysis.images.limits import Limits
from cytoray_analysis.images.ome_xml import OmeDocument, OmeImage, OmePlanes, parse_ome
from cytoray_analysis.images.series import SeriesInfo, frames_missing
from cytoray_analysis.images.tiff_claims import doubted
from cytoray_analysis.images.tiff_metadata import plain_metadata
from cytoray_analysis.images.tiff_series import PageAt, TiffSeries, page_at
from cytoray_analysis.images.tiff_stacks import joined

# Of these kinds tifffile corrects offsets or lengths while it lists the pages, so that pages are read through it.
_CORRECTED = frozenset({"lsm", "ndpi", "philips", "stk", "nih", "sis", "bif", "eer"})
_GUESSED = frozenset("QI")


def list_tiff_series(file: Any, label: str, limits: Limits, *, folder: Path | None) -> list[TiffSeries]:
    """List the images of an open :class:`tifffile.TiffFile`.

    Parameters
    ----------
    folder
        Folder of other files that its metadata may name; None for an untrusted file, which may name none.

    Raises
    ------
    UnreadableImageError
        It holds no image, or its planes are in files that may not be opened.
    ImageTooLargeError
        Its metadata announce more planes than allowed.
    """
    if not file.pages:
        raise UnreadableImageError(f"{label}: the TIFF file declares no image", hint="export the image again")
    xml = _ome_text(file.pages.first)
    warnings: Warnings = ()
    if xml is not None:
        document, warnings = _document(xml, label, folder)
        if document is not None:
            document, more = _with_sizes(document, len(file.pages), label)
            warnings += more
        found = [] if document is None else _OmeFile(file, document, label, limits, folder).series()
        if found:
            return found
        if document is not None and document.images:
            warnings = (_unusable(label, "they describe no plane of the file"),)
    plain = [_plain_series(file, index, one, label) for index, one in enumerate(file.series)]
    plain = joined(plain, file, _offsets_of(file)) if len(plain) > 1 else plain
    usable = [replace(one, warnings=one.warnings + warnings) for one in plain if one is not None]
    if not usable:
        raise UnreadableImageError(
            f"{label}: the TIFF file declares an unknown pixel type", hint="export the image again"
        )
    return usable


def _ome_text(page: Any) -> str | None:
    text = str(page.description or "")
    return text if "<OME" in text[:4096] or ":OME" in text[:4096] or text.rstrip().endswith("OME>") else None


def _unusable(label: str, why: str) -> AnswerWarning:
    sentence = f"{label}: its OME metadata cannot be used: {why}; axes, channel names and pixel size may be unknown"
    return AnswerWarning("metadata-unreadable", sentence)


def _document(xml: str, label: str, folder: Path | None) -> tuple[OmeDocument | None, Warnings]:
    document = parse_ome(xml)
    if document is None:
        return None, (_unusable(label, "they are not XML"),)
    if document.images or document.metadata_file is None:
        return document, ()
    if folder is None:
        raise UnreadableImageError(
            f"{label} is one of several files: its metadata are in {document.metadata_file}",
            hint="send all of them as one OME-TIFF or OME-Zarr, or read it from a folder with cytoray predict",
        )
    companion = folder / Path(document.metadata_file).name
    if not companion.is_file():
        return None, (_unusable(label, f"they are in {companion.name}, which is not in the folder of the image"),)
    whole = parse_ome(companion.read_text(encoding="utf-8", errors="replace"))
    if whole is None:
        return None, (_unusable(label, f"{companion.name} is not XML"),)
    return replace(whole, uuid=document.uuid), ()


def _with_sizes(document: OmeDocument, pages: int, label: str) -> tuple[OmeDocument | None, Warnings]:
    """Give the length along T, C or Z that the metadata of one image do not say by the number of its pages.

    Metadata that leave open which page is which plane cannot be used.
    """
    if len(document.images) != 1:
        return document, ()
    (image,) = document.images
    if not image.unsaid or any(planes.file or planes.uuid for planes in image.planes):
        return document, ()
    axis, known = image.unsaid[-1], math.prod(image.sizes.values())  # of several the last, time, is longest
    if pages % known or (len(image.unsaid) > 1 and pages != known):
        return None, (_unusable(label, f"they do not state its length along {' and '.join(image.unsaid)}"),)
    sizes = {**image.sizes, axis: pages // known}
    return replace(document, images=(replace(image, sizes=sizes),)), ()


@dataclass
class _OmeFile:
    """Finds the planes of OME metadata in their files."""

    file: Any
    document: OmeDocument
    label: str
    limits: Limits
    folder: Path | None

    def __post_init__(self) -> None:
        self._offsets: dict[str, list[int]] = {"": _offsets_of(self.file)}
        self._used: set[int] = set()
        self._elsewhere: dict[str, None] = {}
        self._next = 0
        self._claimed: set[tuple[str, int]] = set()
        references = {planes.uuid or planes.file for image in self.document.images for planes in image.planes}
        self._only_one = len(references) == 1

    def series(self) -> list[TiffSeries]:
        """Return the images that have at least one plane."""
        found = [one for image in self.document.images if (one := self._image(image)) is not None]
        if not found and self._elsewhere:
            raise UnreadableImageError(
                f"{self.label} contains none of its planes: they are in {', '.join(list(self._elsewhere)[:5])}",
                hint=_OTHER_FILES[self.folder is None],
            )
        if found and not self._elsewhere:
            found[0] = replace(found[0], warnings=found[0].warnings + self._undescribed())
        return found

    def _image(self, image: OmeImage) -> TiffSeries | None:
        planes, missing = self._place(image)
        first = next((plane for plane in planes if plane is not None), None)
        if first is None:
            return None
        page = page_at(self.file, first)
        if page.dtype is None:
            return None
        # Samples of one pixel are channels for OME.
        samples = int(page.samplesperpixel)
        sizes = dict(image.sizes)
        outer = image.order[::-1]
        if samples > 1 and sizes["C"] > 1:
            planes, sizes["C"] = _without_samples(planes, outer, sizes, samples)
        planes = doubted(planes, [(axis, sizes[axis]) for axis in outer], self._claimed, self._offsets)
        warnings: Warnings = ()
        if not missing:  # planes of a file that is not there are no end of an acquisition
            planes, sizes["T"], warnings = self._without_tail(planes, outer, sizes)
        shape = (*(sizes[axis] for axis in outer), *page.shape)
        announced, there = len(planes), sum(plane is not None for plane in planes)
        return TiffSeries(
            info=SeriesInfo(image.name, outer + page.axes, shape, bool(page.is_reduced)),
            dtype=np.dtype(page.dtype),
            keyframe=page,
            pages=tuple(planes),
            missing=f"its metadata declare {announced} planes, but {there} exist{missing}",
            channels=None if samples > 1 else _padded(image.channels, sizes["C"]),
            pixel_size=image.pixel_size,
            warnings=warnings,
        )

    def _place(self, image: OmeImage) -> tuple[list[PageAt | None], str]:
        """Return the location of each plane, in C order with the slowest axis first, and the missing files."""
        outer = image.order[::-1]
        shape = [image.sizes[axis] for axis in outer]
        count = math.prod(shape)
        if count > self.limits.frames:
            raise ImageTooLargeError(
                f"{self.label} declares {count} planes, more than the {self.limits.frames} allowed",
                hint="send fewer frames per file, or store the image as OME-Zarr",
            )
        planes: list[PageAt | None] = [None] * count
        absent: dict[str, None] = {}
        elements = image.planes or (OmePlanes(dict.fromkeys(outer, 0), self._next, count, None, None),)
        for element in elements:
            indexes = [element.first[axis] for axis in outer]
            if any(index >= length for index, length in zip(indexes, shape, strict=True)):
                continue  # written so by programs that cropped the image
            start = int(np.ravel_multi_index(indexes, shape))
            key = self._file_of(element)
            if key is None:
                absent[element.file or str(element.uuid)] = None
                continue
            offsets = self._offsets[key]
            page = element.page or 0
            for step in range(min(element.count or len(offsets), count - start, len(offsets) - page)):
                place, before = PageAt(offsets[page + step], key), planes[start + step]
                contested = before is not None and (before.offset, before.file) != (place.offset, key)
                planes[start + step] = replace(place, doubt=_TWO_PAGES) if contested else before or place
                if not key:
                    self._used.add(page + step)
        if not image.planes:
            self._next += count
        self._elsewhere |= absent
        return planes, f"; those of {', '.join(list(absent)[:5])} cannot be read" if absent else ""

    def _file_of(self, planes: OmePlanes) -> str | None:
        """Return the key of the file that holds planes; None where it is not there or may not be opened."""
        own = Path(str(self.file.filename or "")).name.lower()
        if (
            (planes.file is None and planes.uuid is None)
            or (planes.uuid is not None and planes.uuid == self.document.uuid)
            or (planes.file is not None and Path(planes.file).name.lower() == own)
            or self._only_one
        ):
            return ""
        if self.folder is None or planes.file is None:
            return None
        path = self.folder / Path(planes.file.replace("\\", "/")).name
        key = str(path)
        if key not in self._offsets:
            if not path.is_file():
                return None
            from tifffile import TiffFile

            with TiffFile(path, is_ome=False) as other:
                self._offsets[key] = _offsets_of(other)
        return key

    def _without_tail(
        self, planes: list[PageAt | None], outer: str, sizes: Mapping[str, int]
    ) -> tuple[list[PageAt | None], int, Warnings]:
        """Leave out time points at the end of which no plane is there: an acquisition that was stopped."""
        table = np.empty(len(planes), object)
        table[:] = planes
        by_time = np.moveaxis(table.reshape([sizes[axis] for axis in outer]), outer.index("T"), 0)
        there = [any(plane is not None for plane in frame.flat) for frame in by_time]
        kept = max(index + 1 for index, has in enumerate(there) if has)
        if kept == len(there):
            return planes, kept, ()
        left = np.moveaxis(by_time[:kept], 0, outer.index("T"))
        return list(left.flat), kept, (frames_missing(self.label, len(there), kept),)

    def _undescribed(self) -> Warnings:
        unused = sorted(set(range(len(self._offsets[""]))) - self._used)
        if not unused or self._next:
            return ()
        spare = [index for index in unused[:256] if not page_at(self.file, PageAt(self._offsets[""][index])).is_reduced]
        if not spare:
            return ()
        sentence = f"{self.label}: {len(spare)} of its pages are not described by its metadata and are omitted"
        return (AnswerWarning("planes-not-described", sentence),)


_TWO_PAGES = "has two pages in the metadata"
_OTHER_FILES = {
    True: "send all files as one OME-TIFF or OME-Zarr, or read them from a folder with cytoray predict",
    False: "copy the other files of the image into the same folder",
}


def _without_samples(
    planes: list[PageAt | None], outer: str, sizes: Mapping[str, int], samples: int
) -> tuple[list[PageAt | None], int]:
    """Keep one entry of C for each plane, where each plane holds several samples."""
    if sizes["C"] < samples:
        return planes, sizes["C"]
    count = max(1, sizes["C"] // samples)
    table = np.empty(len(planes), object)
    table[:] = planes
    # Writers number planes without regard to samples, so that the first entries are those which are there.
    flat = [plane for plane in planes if plane is not None]
    wanted = count * math.prod(sizes[axis] for axis in outer if axis != "C")
    if len(flat) <= wanted and all(plane is not None for plane in planes[: len(flat)]):
        return [*flat, *[None] * (wanted - len(flat))], count
    place = outer.index("C")
    by_channel = np.moveaxis(table.reshape([sizes[axis] for axis in outer]), place, 0)
    step = sizes["C"] // count
    return list(np.moveaxis(by_channel[: count * step : step], 0, place).flat), count


def _padded(names: tuple[str, ...], count: int) -> tuple[str, ...] | None:
    if not any(names):
        return None
    return (names + ("",) * count)[:count]


def _offsets_of(file: Any) -> list[int]:
    """Return the offsets of the directories of a file."""
    pages = file.pages
    try:
        pages.useframes = True
        pages.set_keyframe(0)
        return [int(pages[index].offset) for index in range(len(pages))]
    except RuntimeError:  # a page is stored in another way than the first, so that all of its tags must be read
        pages.useframes = False
        return [int(pages[index].offset) for index in range(len(pages))]
    finally:
        pages.useframes = False


def _plain_series(file: Any, index: int, series: Any, label: str) -> TiffSeries | None:
    """Describe an image as tifffile finds it, in a file without OME metadata."""
    page = series.keyframe
    if series.dtype is None or page.dtype is None:
        return None
    shape = tuple(int(length) for length in series.shape)
    axes = str(series.axes)
    inner = len(page.shape)
    pages = list(series.pages)
    count = math.prod(shape[:-inner]) if len(shape) >= inner and shape[-inner:] == page.shape else 0
    block = None
    if series.dataoffset is not None and len(pages) != count:
        block = int(series.dataoffset)
    elif not count:
        raise UnreadableImageError(
            f"{label}: pages of {page.shape} cannot make an image of {shape}",
            field="bytes",
            hint="the file is damaged; copy or export it again",
        )
    corrected = index if str(series.kind) in _CORRECTED else None
    places: list[PageAt | None] = [
        None if one is None else PageAt(number if corrected is not None else int(one.offset))
        for number, one in enumerate(pages[:count])
    ]
    places += [None] * (count - len(places))
    names, sizes, warnings = plain_metadata(file, page, axes, shape)
    name = "" if series.name in ("", series.kind, "shaped", "uniform", "generic", None) else str(series.name)
    one = TiffSeries(
        info=SeriesInfo(name, axes, shape, _is_beside(page) or name in ("Thumbnail", "Label", "Macro")),
        dtype=np.dtype(series.dtype),
        keyframe=page,
        pages=() if block is not None else tuple(places),
        block=block,
        corrected=corrected,
        missing=f"its metadata declare {count} planes, but {len(pages)} exist",
        guessed_axes=any(letter in _GUESSED and length > 1 for letter, length in zip(axes, shape, strict=True)),
        channels=names,
        pixel_size=sizes,
        warnings=warnings,
    )
    return _stopped(one, label)


def _is_beside(page: Any) -> bool:
    """Whether a page is a reduced copy of another, or says where another is transparent."""
    return bool(page.is_reduced or page.is_mask)


def _stopped(series: TiffSeries, label: str) -> TiffSeries:
    """Omit complete missing time points at the end, if time is the slowest axis."""
    axes, shape = series.info.axes, series.info.shape
    if series.block is not None or axes[:1] != "T" or not series.pages or series.pages[-1] is not None:
        return series
    each = len(series.pages) // shape[0]
    there = len(series.pages) - next(number for number, page in enumerate(reversed(series.pages)) if page is not None)
    kept = -(-there // each)
    if kept == shape[0]:
        return series
    return replace(
        series,
        info=replace(series.info, shape=(kept, *shape[1:])),
        pages=series.pages[: kept * each],
        warnings=(*series.warnings, frames_missing(label, shape[0], kept)),
    )
