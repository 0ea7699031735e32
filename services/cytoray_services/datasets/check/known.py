"""Check of masks of known pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import InputError
from cytoray_analysis.numbering import dense_numbers
from cytoray_services.datasets.check.files import size_of
from cytoray_services.datasets.check.findings import Checked, Finding, name_in, shorten
from cytoray_services.datasets.chosen import chosen_known
from cytoray_services.datasets.dataset import Dataset, Item


def read_known(item: Item, dataset: Dataset, axes: str, shape: tuple[int, ...]) -> NDArray[np.bool_] | Finding | None:
    """Read the mask of known pixels of an item, or return the finding that prevents it; None without a mask.

    Parameters
    ----------
    axes
        Of the image, after the selection.
    shape
        Of its labels.
    """
    if item.known is None:
        return None
    name = name_in(dataset, item.known)
    if not item.known.exists():
        remedy = "Restore it, or remove it from the manifest if all pixels are known."
        return Finding("error", name, "the file does not exist", remedy, "missing-file")
    try:
        known = chosen_known(item.known, dataset.selection, axes)
    except InputError as error:
        return Finding("error", name, error.message, error.hint or "", "wrong-axes")
    if known.shape != shape:
        problem = f"its size is {size_of(known.shape)}, that of its labels {size_of(shape)}"
        return Finding("error", name, problem, "Crop or resample both together.", "size-mismatch")
    return known


def find_cut(labels: NDArray[np.integer], known: NDArray[np.bool_], name: str) -> Iterator[Finding]:
    """Find objects that are known only in part."""
    dense, names = dense_numbers(labels)
    size = np.bincount(dense.ravel())
    within = np.bincount(dense[known], minlength=len(size))
    cut = names[np.flatnonzero((within > 0) & (within < size))]
    cut = cut[cut > 0]
    if len(cut):
        problem = f"{len(cut)} objects are known only in part (such as {shorten(cut.tolist())})"
        remedy = "Let the mask contain each object whole, or nothing of it: the part is learnt as if it were an object."
        yield Finding("warning", name, problem, remedy, "cut-objects")


def find_nothing_known(checked: Checked) -> Iterator[Finding]:
    """Find splits without any known pixel, and report masks without one."""
    items = [items[0] for items in checked.dataset.images]
    unknown = [item for item in items if checked.of(item).known == 0]
    for split in checked.required_splits:
        inside = [item for item in items if item.split == split]
        if inside and all(item in unknown for item in inside):
            problem = f"no pixel of the {len(inside)} images in split {split!r} is known"
            remedy = "Mark in one of them which pixels are known, or omit the column of these masks."
            yield Finding("error", ".", problem, remedy, "nothing-known")
    for item in unknown:
        if item.known is not None:
            problem = "none of its pixels is known, so its image is not used"
            remedy = "Mark the pixels that are known, or remove the row."
            yield Finding("note", checked.name(item.known), problem, remedy, "nothing-known")
