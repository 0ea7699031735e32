"""Stacks in TIFF files whose pages are not all stored the same way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cytoray_analysis.images.tiff_series import TiffSeries


def joined(found: list[TiffSeries | None], file: Any, offsets: list[int]) -> list[TiffSeries | None]:
    """Join pages that tifffile separates by storage: compression, strips or bit order."""
    if len(found) < 2 or any(one is None or _storage_only(one, file) != _storage_only(found[0], file) for one in found):
        return found
    all_of = [one for one in found if one is not None]
    order = {offset: number for number, offset in enumerate(offsets)}
    pages = (place for one in all_of for place in one.pages if place is not None)
    places = sorted(pages, key=lambda place: order.get(place.offset, len(order)))
    first = all_of[0]
    letters, page_shape = str(first.keyframe.axes), tuple(int(length) for length in first.keyframe.shape)
    info = replace(first.info, axes="I" + letters, shape=(len(places), *page_shape))
    return [replace(first, info=info, pages=tuple(places), guessed_axes=True)]


def _storage_only(one: TiffSeries | None, file: Any) -> tuple[Any, ...]:
    """Return what the pages of a series are, whatever they are compressed with; never equal where they say more."""
    if one is None or one.block is not None or one.corrected is not None or one.info.reduced or one.info.name:
        return (id(one),)
    page = one.keyframe
    planes = len(one.info.axes) - len(page.axes)
    if file.is_imagej or file.is_shaped or planes > 1 or (planes == 1 and one.info.axes[0] not in "IQ"):
        return (id(one),)
    colours = None if page.colormap is None else page.colormap.tobytes()
    return page.shape, page.axes, page.dtype, int(page.photometric), page.extrasamples, page.bitspersample, colours
