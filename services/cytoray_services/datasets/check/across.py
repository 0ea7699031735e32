"""Checks of items against each other and against the requirements of training, for every kind of truth."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cytoray_services.datasets.check.findings import Checked, Finding, Severity, shorten
from cytoray_services.datasets.dataset import Item
from cytoray_services.kinds import data_kind

_DIMENSIONS = {"YX": "planes (2D)", "ZYX": "volumes (3D)"}
_AXES_REMEDIES = {
    ("YX", "ZYX"): "Use a recipe for volumes (3D), or select a plane: data.select.plane.",
    ("ZYX", "YX"): "Use a recipe for planes (2D), or store each volume as one file with the axes ZYX.",
}


def compare_axes(checked: Checked) -> Iterator[Finding]:
    """Find images with other axes than the model or, without one, than most images."""
    axes = {path: facts.spatial_axes for (path, _), facts in checked.facts.items() if facts.axes}
    counts = Counter(axes.values())
    wanted = checked.axes or max(("YX", "ZYX"), key=lambda known: counts[known])
    if checked.axes is not None and len(counts) == 1 and wanted not in counts:
        (usual,) = counts
        problem = f"the model expects {_kind(wanted)}, these images are {_kind(usual)}"
        yield Finding("error", ".", problem, _axes_remedy(wanted, usual), "wrong-axes")
        return
    whose = "of the model" if checked.axes else "like the other images"
    for path, got in axes.items():
        if got != wanted:
            problem = f"expected the axes {wanted} {whose}, got {got}"
            yield Finding("error", checked.name(path), problem, _axes_remedy(wanted, got), "wrong-axes")


def _kind(axes: str) -> str:
    return f"{_DIMENSIONS[axes]} with axes {axes}" if axes in _DIMENSIONS else f"stacks with axes {axes}"


def _axes_remedy(wanted: str, got: str) -> str:
    return _AXES_REMEDIES.get((wanted, got), "Select a part: data.select.frame, data.select.plane.")


def compare_channels(checked: Checked) -> Iterator[Finding]:
    """Find images with another number of channels than the model or, without one, than most images."""
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
            remedy = "Select the channels of the model (data.select.channel), or remove those images."
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
            remedy = "Keep it in one split only; otherwise scores are too high."
            yield Finding("error", checked.name(item.image), problem, remedy, "duplicate-across-splits")


def find_missing_splits(checked: Checked) -> Iterator[Finding]:
    """Find required splits without items."""
    splits = checked.dataset.splits
    for split in checked.required_splits:
        if split not in splits:
            problem = f"no image is in split {split!r}; there are {', '.join(map(repr, splits))}"
            remedy = f"Put some images into {split!r}, or set data.validation in the recipe to other folders."
            if checked.dataset.derived_split:
                problem = f"no image is in split {split!r}, which was drawn {drawn_numbers(checked)}"
                remedy = "Add images (or groups), a split column, folders train/ and val/, or data.validation."
            yield Finding("error", ".", problem, remedy, "split-missing")


def find_shared_truths(checked: Checked) -> Iterator[Finding]:
    """Find truths that several images share: an error across splits and in plain folders, otherwise a note."""
    users: dict[Path, list[Item]] = {}
    written: dict[Path, Path] = {}
    for item in checked.dataset.items:
        if item.truth is not None:
            users.setdefault(_one_path(item.truth), []).append(item)
            written.setdefault(_one_path(item.truth), item.truth)
    for place, items in users.items():
        images = {_one_path(item.image): item for item in items}
        if len(images) < 2:
            if len(items) > len({item.split for item in items}):
                problem = f"it is listed {len(items)} times with the same image, {checked.name(items[0].image)}"
                remedy = "Keep one of the rows, unless it should have more weight than others."
                yield Finding("note", checked.name(written[place]), problem, remedy, "listed-twice")
            continue
        names = shorten([checked.name(item.image) for item in images.values()])
        splits = sorted({item.split for item in items})
        if len(splits) > 1:
            problem = f"it is used by {len(images)} images in the splits {', '.join(splits)}: {names}"
            remedy = "Give each image its own truth, or keep all of them in one split; otherwise scores are too high."
            yield Finding("error", checked.name(written[place]), problem, remedy, "truth-across-splits")
        else:
            severity: Severity = "note" if all(item.row for item in items) else "error"
            problem = f"it is used by {len(images)} images: {names}"
            remedy = "Give each image its own truth, unless they show the same field."
            yield Finding(severity, checked.name(written[place]), problem, remedy, "truth-used-twice")


def _one_path(path: Path) -> Path:
    """Return a path that is equal for two names of one file; files in stores have one name."""
    return path.resolve() if path.is_absolute() else Path(os.path.normpath(path))


def find_split_groups(checked: Checked) -> Iterator[Finding]:
    """Find groups of the manifest that are in two splits."""
    splits: dict[str, set[str]] = {}
    for item in checked.dataset.items:
        if item.group:
            splits.setdefault(item.group, set()).add(item.split)
    torn = {group: sorted(names) for group, names in splits.items() if len(names) > 1}
    if torn:
        first, names = next(iter(torn.items()))
        problem = (
            f"{len(torn)} of {len(splits)} groups of the column {checked.dataset.group_column!r} are in several "
            f"splits, such as {first!r} in {', '.join(names)}"
        )
        remedy = (
            "Keep each group in one split; otherwise scores are too high. Without a split column, this is automatic."
        )
        yield Finding("warning", ".", problem, remedy, "shared-group")


def warn_of_unused(checked: Checked) -> Iterator[Finding]:
    """Report files of a plain folder that no item uses."""
    for path in checked.dataset.unused:
        problem = "no item uses it: it has no partner with the same name, or is in a folder that no layout reads"
        remedy = "Add a partner with the same name, move it to a folder of the layout, or remove it."
        yield Finding("warning", checked.name(path), problem, remedy, "unused-file")


def warn_of_drawn_split(checked: Checked) -> Iterator[Finding]:
    """Report that no split is given, and which one was drawn."""
    dataset = checked.dataset
    if dataset.derived_split:
        remedy = (
            "The column 'group' keeps groups together; add a split column to choose it yourself."
            if dataset.group_column
            else "Add a column 'group' or a split if images belong together (one slide, one mosaic, one well)."
        )
        yield Finding(
            "warning", ".", f"no split is given, so one was drawn {drawn_numbers(checked)}", remedy, "no-split-column"
        )


def note_drawn_test(checked: Checked) -> Iterator[Finding]:
    """Report that images of ``train`` were drawn for ``test``."""
    dataset = checked.dataset
    if dataset.derived_test and not dataset.derived_split:
        test = dataset.split("test")
        groups = len({item.group or str(item.image) for item in test.items})
        what = (
            f"{len(test.images)} images"
            if groups == len(test.images)
            else f"{len(test.images)} images ({groups} groups)"
        )
        problem = f"no split test is given, so {what} of train were drawn for it, for evaluation only"
        remedy = "Add a split test to choose it yourself, or train on them: data.draw_test: false in the recipe."
        yield Finding("note", ".", problem, remedy, "no-test-split")


def drawn_numbers(checked: Checked) -> str:
    """Return how a split was drawn, and the number of images in each part."""
    dataset = checked.dataset
    images = Counter(items[0].split for items in dataset.images)
    shown = [split for split in ("train", "val", "test") if images[split] or split != "test"]
    numbers = ", ".join(f"{images[split]} to {split}" for split in shown)
    groups = len({item.group for item in dataset.items if item.group})
    how = (
        f"by the {groups} groups of the column {dataset.group_column!r}"
        if groups
        else "by a hash of each image's content"
    )
    what = f"{data_kind(dataset.truth_kind).unit}s"
    lent = ""
    if dataset.lent:
        names = shorten([checked.name(path) for path in dataset.lent])
        lent = f" ({names}, drawn for train, is used for val, which would be empty, until there are more {what})"
    return f"{how}, of {sum(images.values())} {what} {numbers}{lent}"
