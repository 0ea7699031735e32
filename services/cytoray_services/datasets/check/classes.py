"""Checks of classes: labels, boxes, balance, and cells in two splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cytoray_services.datasets.check.across import find_duplicates
from cytoray_services.datasets.check.files import size_of
from cytoray_services.datasets.check.findings import Checked, Finding
from cytoray_services.datasets.dataset import Dataset, Item

FEWEST_EXAMPLES = 10
"""Fewer examples of a class in a required split give a warning."""
NOTED_IMBALANCE = 3.0
"""Ratio of the largest to the smallest class in training above which there is a note."""
_SAME_CELL = 0.5  # intersection over union of two boxes


def count_classes(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Return the number of items of each class in each split, splits by name, the largest class first.

    Items without a label do not count; a data set without classes has empty splits.
    """
    counts: dict[str, Counter[str]] = {split: Counter() for split in dataset.splits}
    for item in dataset.items:
        if item.label:
            counts[item.split][item.label] += 1
    return {split: dict(sorted(count.items(), key=lambda pair: (-pair[1], pair[0]))) for split, count in counts.items()}


def imbalance(counts: Mapping[str, int]) -> float:
    """Return the ratio of the largest to the smallest class; 1 without classes."""
    return max(counts.values()) / min(counts.values()) if counts else 1.0


def check_labels_given(checked: Checked) -> Iterator[Finding]:
    """Find items without a class."""
    for items in checked.dataset.images:
        missing = [item for item in items if not item.label]
        if missing:
            problem = (
                "it has no class" if len(items) == 1 else f"{len(missing)} of its {len(items)} items have no class"
            )
            remedy = "Fill the label column, or remove those rows."
            yield Finding("error", checked.name(items[0].image), problem, remedy, "missing-label")


def check_boxes(checked: Checked) -> Iterator[Finding]:
    """Find boxes that are empty, outside their image, or have other axes."""
    for items in checked.dataset.images:
        shape = checked.of(items[0]).shape
        boxes = [item.box for item in items if item.box is not None]
        name = checked.name(items[0].image)
        if not boxes or not shape:
            continue
        other = next((box for box in boxes if len(box[0]) != len(shape)), None)
        if other is not None:
            problem = f"expected boxes with {len(shape)} axes like the image, got {len(other[0])}"
            remedy = "Add zmin and zmax to boxes of volumes, and remove them from boxes of planes."
            yield Finding("error", name, problem, remedy, "wrong-axes")
            continue
        array = np.asarray(boxes, dtype=np.float64)
        empty = np.logical_not((array[:, 1] > array[:, 0]).all(axis=1))  # also true for NaN
        middle = array.mean(axis=1)
        outside = ~empty & ((middle < 0) | (middle > shape)).any(axis=1)
        if empty.any():
            problem = f"{_so_many(empty)} end before they begin, such as {_show(array[empty][0])}"
            remedy = "Use the smaller coordinate as min and the larger as max, in pixels."
            yield Finding("error", name, problem, remedy, "empty-box")
        if outside.any():
            problem = (
                f"{_so_many(outside)} are outside the image of {size_of(shape)}, such as {_show(array[outside][0])}"
            )
            remedy = "Give boxes in pixels of this image; x counts columns, y counts rows."
            yield Finding("error", name, problem, remedy, "box-outside")


def _so_many(chosen: np.ndarray) -> str:
    return f"{np.count_nonzero(chosen)} of its {len(chosen)} boxes"


def _show(box: np.ndarray) -> str:
    return " × ".join(f"{start:g}…{stop:g}" for start, stop in box.T)


def check_classes(checked: Checked) -> Iterator[Finding]:
    """Find classes with no or few examples in a split."""
    everywhere = count_classes(checked.dataset)
    counts = {split: everywhere[split] for split in checked.required_splits if split in everywhere}
    names = sorted({name for count in counts.values() for name in count})
    if len(names) == 1:
        problem = f"expected at least two classes, got only {names[0]!r}"
        remedy = "Label another class; data for another task need another layout or a manifest.csv."
        yield Finding("error", ".", problem, remedy, "single-class")
        return
    for name in names:
        for split, count in counts.items():
            if name not in count:
                yield _class_missing(checked, name, split)
            elif count[name] < FEWEST_EXAMPLES:
                problem = f"class {name!r} has {count[name]} examples in split {split!r}, fewer than {FEWEST_EXAMPLES}"
                remedy = "Label more of them, or merge the class with a similar one; its score depends on few examples."
                yield Finding("warning", ".", problem, remedy, "rare-class")


def _class_missing(checked: Checked, name: str, split: str) -> Finding:
    if not checked.dataset.derived_split:
        problem = f"class {name!r} has no example in split {split!r}"
        return Finding("error", ".", problem, "Move some there, or remove the class.", "class-missing")
    problem = f"class {name!r} has no example in split {split!r}, which was drawn"
    remedy = (
        "Label more of them, or add a split with each class on both sides (a split column, or folders train/ and "
        "val/): a drawn split does not balance classes."
    )
    return Finding("warning", ".", problem, remedy, "class-missing")


def note_imbalance(checked: Checked) -> Iterator[Finding]:
    """Report a class imbalance of the training split that needs a setting in the recipe."""
    everywhere = count_classes(checked.dataset)
    split = "train" if "train" in everywhere else next(iter(everywhere))
    counts = everywhere[split]
    ratio = imbalance(counts)
    if ratio >= NOTED_IMBALANCE:
        largest, *_, smallest = counts
        problem = (
            f"the largest class of split {split!r} has {ratio:.0f} times the examples of the smallest: "
            f"{largest} {counts[largest]}, {smallest} {counts[smallest]}"
        )
        remedy = "Balance the sampling (data.balance), weight the classes, or use the focal loss; compare macro scores."
        yield Finding("note", ".", problem, remedy, "class-imbalance")


def find_duplicate_cells(checked: Checked) -> Iterator[Finding]:
    """Find cells in two splits, and images with cells in two splits."""
    boxed = all(item.box is not None for item in checked.dataset.items)
    yield from _find_shared_images(checked) if boxed else find_duplicates(checked)


def _find_shared_images(checked: Checked) -> Iterator[Finding]:
    by_digest: dict[str, list[Item]] = defaultdict(list)
    for item in checked.dataset.items:
        if checked.of(item).digest:
            by_digest[checked.of(item).digest].append(item)
    for items in by_digest.values():
        by_split: dict[str, list[Item]] = defaultdict(list)
        for item in items:
            by_split[item.split].append(item)
        first, *others = by_split
        for split in others:
            yield _compare_cells(checked, by_split[first], by_split[split])


def _compare_cells(checked: Checked, ones: Sequence[Item], others: Sequence[Item]) -> Finding:
    name, split = checked.name(others[0].image), others[0].split
    there = f"as {checked.name(ones[0].image)}, in split {ones[0].split!r}"
    twice = _count_same(*(_sound_boxes(items, checked.of(others[0]).shape) for items in (ones, others)))
    if twice:
        problem = f"{twice} of its {len(others)} boxes in split {split!r} are also, {there}"
        remedy = "Keep each cell in one split only; otherwise scores are too high."
        return Finding("error", name, problem, remedy, "duplicate-across-splits")
    problem = f"it has cells in split {split!r} and, {there}"
    remedy = "Split by image: cells of one image share light, stain and focus, so scores are too high."
    return Finding("warning", name, problem, remedy, "shared-image")


def _sound_boxes(items: Sequence[Item], shape: Sequence[int]) -> np.ndarray:
    """Return the boxes (N, 2, d) that are not empty and have the axes of their image."""
    boxes = [item.box for item in items if item.box is not None and len(item.box[0]) == len(shape)]
    array = np.array(boxes, dtype=np.float64).reshape(-1, 2, len(shape))
    return np.asarray(array[(array[:, 1] > array[:, 0]).all(axis=1) & np.isfinite(array).all(axis=(1, 2))])


def _count_same(ones: np.ndarray, others: np.ndarray) -> int:
    """Count the boxes of `others` that cover the same cell as one of `ones`."""
    from scipy.spatial import cKDTree

    if not len(ones) or not len(others):
        return 0
    # Boxes that overlap by half have their centres within half a box length along every axis.
    reach = (ones[:, 1] - ones[:, 0]).max() / 2
    near = cKDTree(ones.mean(axis=1)).query_ball_point(others.mean(axis=1), reach, p=np.inf)
    return sum(
        any(_overlap(box, ones[index]) > _SAME_CELL for index in indices)
        for box, indices in zip(others, near, strict=True)
    )


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    common = np.clip(np.minimum(one[1], other[1]) - np.maximum(one[0], other[0]), 0.0, None).prod()
    union = (one[1] - one[0]).prod() + (other[1] - other[0]).prod() - common
    return float(common / union) if union > 0 else 0.0
