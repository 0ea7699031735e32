"""The check for one picture in two splits that was stored with another bit depth or contrast."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import CytorayError
from cytoray_analysis.fine_structure import fine_structure, is_linear_copy, middle_plane
from cytoray_analysis.images import Image
from cytoray_analysis.tracking.ctc import read_movie
from cytoray_services.datasets.check.files import open_file
from cytoray_services.datasets.check.findings import Checked, Finding
from cytoray_services.datasets.dataset import Dataset, Item
from cytoray_services.datasets.fetching import passing

_ALIKE = 0.9  # correlation of fine structure from which on two pictures are compared pixel by pixel
_AT_ONCE = 512


def detail_of(image: Image) -> NDArray[np.float16] | None:
    """Return the fine structure of an image, flat; None where it has none, or hardly a pixel to tell it by."""
    if min(image.spatial_shape[-2:]) < 8:
        return None
    detail = fine_structure(middle_plane(image))
    return detail.ravel().astype(np.float16) if detail.any() else None


def find_copies(checked: Checked) -> Iterator[Finding]:
    """Find pictures that another split has, too, but for brightness and contrast."""
    by_shape: dict[tuple[str, tuple[int, ...]], list[Item]] = defaultdict(list)
    for items in checked.dataset.images:
        facts = checked.of(items[0])
        if facts.detail is not None:
            by_shape[facts.spatial_axes, facts.shape].append(items[0])
    for alike in by_shape.values():
        if len({item.split for item in alike}) > 1:
            yield from _copies_among(checked, alike)


def _copies_among(checked: Checked, items: list[Item]) -> Iterator[Finding]:
    details = [detail for item in items if (detail := checked.of(item).detail) is not None]
    splits = np.array([item.split for item in items])
    known = np.stack(details).astype(np.float32)
    for start in range(0, len(items), _AT_ONCE):
        similarity = known[start : start + _AT_ONCE] @ known.T
        similarity[splits[start : start + _AT_ONCE, None] == splits[None]] = 0.0
        for row, column in np.argwhere(similarity >= _ALIKE).tolist():
            one, other = items[start + row], items[column]
            if start + row <= column or checked.of(one).digest == checked.of(other).digest:
                continue  # seen from the other side; or the very same pixels, which is said elsewhere
            if _are_copies(checked.dataset, one, other):
                problem = (
                    f"it is in split {one.split!r} and, with other brightness or bit depth, as "
                    f"{checked.name(other.image)} in {other.split!r}: the same picture"
                )
                remedy = "Keep it in one split only, or the score will be too good."
                yield Finding("error", checked.name(one.image), problem, remedy, "copy-across-splits")


def _are_copies(dataset: Dataset, one: Item, other: Item) -> bool:
    planes = []
    for item in (one, other):
        with passing(dataset, [item]) as (_, (local,)):
            image = (
                read_movie(local.image) if dataset.truth_kind == "lineage" else open_file(local.image, item.image.name)
            )
            if isinstance(image, Finding):
                return False
            try:
                planes.append(middle_plane(image))
            except CytorayError:  # what keeps it from being read was found before
                return False
    return planes[0].shape == planes[1].shape and is_linear_copy(*planes)
