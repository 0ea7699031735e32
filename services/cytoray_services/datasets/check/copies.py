"""Check for the same image in two splits with another bit depth or contrast."""

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
from cytoray_services.datasets.remote.fetching import passing
from cytoray_services.kinds import data_kind

_ALIKE = 0.9  # correlation of fine structure above which two images are compared pixel by pixel
_AT_ONCE = 512


def detail_of(image: Image) -> NDArray[np.float16] | None:
    """Return the fine structure of an image, flat; None if there is none or too few pixels."""
    if min(image.spatial_shape[-2:]) < 8:
        return None
    detail = fine_structure(middle_plane(image))
    return detail.ravel().astype(np.float16) if detail.any() else None


def find_copies(checked: Checked) -> Iterator[Finding]:
    """Find images that are also in another split, except for brightness and contrast."""
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
                continue  # reported for the other one; or identical pixels, which another check reports
            if _are_copies(checked.dataset, one, other):
                problem = (
                    f"it is in split {one.split!r} and, with other brightness or bit depth, as "
                    f"{checked.name(other.image)} in {other.split!r}: the same image"
                )
                remedy = "Keep it in one split only; otherwise scores are too high."
                yield Finding("error", checked.name(one.image), problem, remedy, "copy-across-splits")


def _are_copies(dataset: Dataset, one: Item, other: Item) -> bool:
    planes = []
    for item in (one, other):
        with passing(dataset, [item]) as (_, (local,)):
            movies = data_kind(dataset.truth_kind).movies
            image = read_movie(local.image) if movies else open_file(local.image, item.image.name)
            if isinstance(image, Finding):
                return False
            try:
                planes.append(middle_plane(image))
            except CytorayError:  # another check has reported why it cannot be read
                return False
    return planes[0].shape == planes[1].shape and is_linear_copy(*planes)
