"""The check of items against each other and against what a training asks for, whatever their truth is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cytoray_services.datasets.check.findings import Checked, Finding
from cytoray_services.datasets.dataset import Item

_DIMENSIONS = {"YX": "planes (2D)", "ZYX": "volumes (3D)"}
_AXES_REMEDIES = {
    ("YX", "ZYX"): "Take a recipe for volumes (3D), or cut the volumes into planes.",
    ("ZYX", "YX"): "Take a recipe for planes (2D), or store each volume as one file with the axes ZYX.",
}


def compare_axes(checked: Checked) -> Iterator[Finding]:
    """Find images that have not the axes that the model takes, or else not those of most images."""
    axes = {path: facts.spatial_axes for (path, _), facts in checked.facts.items() if facts.axes}
    counts = Counter(axes.values())
    wanted = checked.axes or max(("YX", "ZYX"), key=lambda known: counts[known])
    if checked.axes is not None and len(counts) == 1 and wanted not in counts:
        (usual,) = counts
        problem = f"the model takes {_kind(wanted)}, these images are {_kind(usual)}"
        yield Finding("error", ".", problem, _axes_remedy(wanted, usual), "wrong-axes")
        return
    whose = "as the model takes them" if checked.axes else "like the other images"
    for path, got in axes.items():
        if got != wanted:
            problem = f"expected the axes {wanted} {whose}, got {got}"
            yield Finding("error", checked.name(path), problem, _axes_remedy(wanted, got), "wrong-axes")


def _kind(axes: str) -> str:
    return f"{_DIMENSIONS[axes]} with axes {axes}" if axes in _DIMENSIONS else f"stacks with axes {axes}"


def _axes_remedy(wanted: str, got: str) -> str:
    return _AXES_REMEDIES.get((wanted, got), "Split it into single images.")


def compare_channels(checked: Checked) -> Iterator[Finding]:
    """Find images that have another number of channels than the model takes, or else than most images."""
    counts = Counter(facts.channels for facts in checked.facts.values() if facts.channels)
    if not counts:
        return
    accepted = {checked.channels if checked.channels is not None else counts.most_common(1)[0][0]}
    if checked.grey_as_rgb and (accepted == {3} or (checked.channels is None and accepted == {1})):
        accepted = {1, 3}
    wanted = " or ".join(str(count) for count in sorted(accepted))
    for (path, _), facts in checked.facts.items():
        if facts.channels and facts.channels not in accepted:
            problem = f"expected {wanted} channels, got {facts.channels}"
            remedy = "Keep the channels that the model is for, or train on those images alone."
            yield Finding("error", checked.name(path), problem, remedy, "wrong-channels")


def find_duplicates(checked: Checked) -> Iterator[Finding]:
    """Find the same pixels in two splits."""
    first: dict[str, Item] = {}
    reported: set[tuple[Path, str]] = set()
    for item in checked.dataset.items:
        digest = checked.of(item).digest
        if not digest:
            continue
        other = first.setdefault(digest, item)
        if other.split != item.split and (item.image, item.split) not in reported:
            reported.add((item.image, item.split))
            problem = f"it is in split {item.split!r} and, as {checked.name(other.image)}, in {other.split!r}"
            remedy = "Keep it in one split only, or the score will be too good."
            yield Finding("error", checked.name(item.image), problem, remedy, "duplicate-across-splits")


def find_missing_splits(checked: Checked) -> Iterator[Finding]:
    """Find splits that a training needs and that have no item."""
    splits = checked.dataset.splits
    for split in checked.required_splits:
        if split not in splits:
            problem = f"no image is in split {split!r}; there are {', '.join(map(repr, splits))}"
            remedy = f"Put some images into {split!r}, or name other folders as data.validation in the recipe."
            yield Finding("error", ".", problem, remedy, "split-missing")


def warn_of_drawn_split(checked: Checked) -> Iterator[Finding]:
    """Say that nobody gave a split."""
    if checked.dataset.derived_split:
        problem = "no split is given, so a fifth of the images, chosen by content, became 'val'"
        remedy = "Add a split column if images belong together (one slide, one mosaic, one well)."
        yield Finding("warning", ".", problem, remedy, "no-split-column")
