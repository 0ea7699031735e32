"""The check of a whole data set: which small checks each kind of truth consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import DatasetError
from cytoray_analysis.tasks.protocol import TruthKind
from cytoray_services.datasets.check.across import (
    compare_axes,
    compare_channels,
    find_duplicates,
    find_missing_splits,
    warn_of_drawn_split,
)
from cytoray_services.datasets.check.classes import (
    check_boxes,
    check_classes,
    check_labels_given,
    find_duplicate_cells,
    note_imbalance,
)
from cytoray_services.datasets.check.findings import Checked, Facts, Files, Finding, files_of, sort_findings
from cytoray_services.datasets.check.images import examine_image
from cytoray_services.datasets.check.labels import examine_labelled
from cytoray_services.datasets.check.memory import remembered
from cytoray_services.datasets.check.movies import examine_movie, note_divisions, note_drawn_split
from cytoray_services.datasets.check.targets import compare_target_channels, examine_pair, find_shifted_targets
from cytoray_services.datasets.dataset import Dataset, Item
from cytoray_services.datasets.fetching import passing
from cytoray_services.datasets.manifest import open_dataset

REQUIRED_SPLITS = ("train", "val")
_THREADS = 4


@dataclass(frozen=True)
class _Check:
    """How data of one kind of truth are checked.

    Parameters
    ----------
    examine
        Reads the files of one item.
    compare
        Look at all items together; each says one kind of thing.
    """

    examine: Callable[[Item, Dataset], Facts]
    compare: tuple[Callable[[Checked], Iterable[Finding]], ...]


_EVERY = (compare_axes, compare_channels, find_missing_splits)
_IMAGES = (*_EVERY, warn_of_drawn_split)
_CHECKS: Mapping[TruthKind, _Check] = {
    "labels": _Check(examine_labelled, (*_IMAGES, find_duplicates)),
    "image": _Check(examine_pair, (*_IMAGES, find_duplicates, compare_target_channels, find_shifted_targets)),
    "class": _Check(
        examine_image,
        (*_IMAGES, find_duplicate_cells, check_labels_given, check_boxes, check_classes, note_imbalance),
    ),
    "lineage": _Check(examine_movie, (*_EVERY, note_drawn_split, find_duplicates, note_divisions)),
}


def check_folder(
    root: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    truth: TruthKind | None = None,
    axes: str | None = None,
    channels: int | None = None,
    required_splits: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Open and check a data set; what keeps it from being opened is a finding too.

    Parameters are those of :func:`~cytoray_services.datasets.open_dataset` and :func:`check_dataset`; without
    `required_splits` those of :func:`usual_splits` are.

    Raises
    ------
    MissingFileError
        When there is no such folder.
    """
    opened = open_for_check(root, columns=columns, truth=truth)
    if isinstance(opened, Finding):
        return [opened]
    required = usual_splits(opened) if required_splits is None else required_splits
    return check_dataset(opened, axes=axes, channels=channels, required_splits=required, progress=progress)


def open_for_check(
    root: str | Path, *, columns: Mapping[str, str] | None = None, truth: TruthKind | None = None
) -> Dataset | Finding:
    """Open a data set, or say what keeps it from being opened.

    Raises
    ------
    MissingFileError
        When there is no such folder.
    """
    try:
        return open_dataset(root, columns=columns, truth=truth)
    except DatasetError as error:
        code = "missing-column" if (error.field or "").startswith("columns.") else "layout"
        return Finding("error", ".", error.message, error.hint or "", code)


def usual_splits(dataset: Dataset) -> tuple[str, ...]:
    """Return the splits that a folder should have by itself: train and val, unless it has one image or movie only.

    To validate on, a recipe may name other folders.
    """
    return REQUIRED_SPLITS if len(dataset.images) > 1 else dataset.splits


def check_dataset(
    dataset: Dataset,
    *,
    axes: str | None = None,
    channels: int | None = None,
    grey_as_rgb: bool = True,
    required_splits: Sequence[str] = REQUIRED_SPLITS,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Read every file of a data set and report what would ruin a training.

    What was found about files in a store is kept until one of them changes.

    Parameters
    ----------
    dataset
        From :func:`~cytoray_services.datasets.open_dataset`.
    axes
        Spatial axes that the model takes, ``"YX"`` or ``"ZYX"``; when left out, those of most images.
    channels
        How many channels the model takes; when left out, what most images have.
    grey_as_rgb
        Whether grey images stand in for colour ones.
    required_splits
        Splits that must have images.
    progress
        Called with the number of files done and of all files.

    Returns
    -------
    list of Finding
        Errors first, then warnings, then notes; each by file.
    """
    question = {
        "axes": axes,
        "channels": channels,
        "grey_as_rgb": grey_as_rgb,
        "required_splits": tuple(required_splits),
    }
    return remembered(dataset, question, lambda: _find(dataset, progress, question))


def _find(dataset: Dataset, progress: Callable[[int, int], None] | None, question: dict[str, Any]) -> list[Finding]:
    check = _CHECKS[dataset.truth_kind]
    unique = {files_of(item): item for item in dataset.items}
    facts: dict[Files, Facts] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        examined = pool.map(lambda item: _examined(check, item, dataset), unique.values())
        for done, (files, result) in enumerate(zip(unique, examined, strict=True), start=1):
            facts[files] = result
            if progress is not None:
                progress(done, len(unique))
    checked = Checked(dataset, facts, **question)
    found = [finding for result in facts.values() for finding in result.findings]
    found += [finding for compare in check.compare for finding in compare(checked)]
    return sort_findings(found)


def _examined(check: _Check, item: Item, dataset: Dataset) -> Facts:
    with passing(dataset, [item]) as (here, (local,)):
        return check.examine(local, here)
