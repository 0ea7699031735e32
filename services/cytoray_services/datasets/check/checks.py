"""The check of a whole data set: which small checks each kind of truth consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytoray_analysis.bundle import TaskChoice
from cytoray_analysis.errors import DatasetError
from cytoray_analysis.tasks.protocol import TruthKind
from cytoray_services.datasets.check.across import (
    compare_axes,
    compare_channels,
    find_duplicates,
    find_missing_splits,
    find_shared_truths,
    find_split_groups,
    note_drawn_test,
    warn_of_drawn_split,
    warn_of_unused,
)
from cytoray_services.datasets.check.class_masks import check_named, find_classes_without_pixels
from cytoray_services.datasets.check.classes import (
    check_boxes,
    check_classes,
    check_labels_given,
    find_duplicate_cells,
    note_imbalance,
)
from cytoray_services.datasets.check.copies import find_copies
from cytoray_services.datasets.check.exchanged import find_exchanged_masks
from cytoray_services.datasets.check.findings import Checked, Facts, Files, Finding, files_of, sort_findings
from cytoray_services.datasets.check.fit import find_misplaced_masks
from cytoray_services.datasets.check.images import examine_image
from cytoray_services.datasets.check.labels import examine_labelled
from cytoray_services.datasets.check.memory import remembered
from cytoray_services.datasets.check.movies import examine_movie, note_divisions, note_drawn_split
from cytoray_services.datasets.check.same_pixels import find_same_pixels
from cytoray_services.datasets.check.targets import (
    compare_target_channels,
    examine_pair,
    find_copied_targets,
    find_shifted_targets,
    find_turned_targets,
)
from cytoray_services.datasets.check.unlike import find_unlike
from cytoray_services.datasets.dataset import Dataset, Item
from cytoray_services.datasets.fetching import passing
from cytoray_services.datasets.manifest import open_dataset

REQUIRED_SPLITS = ("train", "val")
_THREADS = 4
_OPENING_CODES = {"split": "unknown-split", "name": "ambiguous-name"}


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

    examine: Callable[[Item, Dataset, TaskChoice | None], Facts]
    compare: tuple[Callable[[Checked], Iterable[Finding]], ...]


_EVERY = (
    compare_axes,
    compare_channels,
    find_missing_splits,
    find_shared_truths,
    find_split_groups,
    find_copies,
    warn_of_unused,
    note_drawn_test,
)
_MASKS = (find_misplaced_masks, find_exchanged_masks)
_TARGETS = (find_shifted_targets, find_turned_targets, find_copied_targets)
_IMAGES = (*_EVERY, warn_of_drawn_split, find_same_pixels)
_CHECKS: Mapping[TruthKind, _Check] = {
    "labels": _Check(examine_labelled, (*_IMAGES, find_duplicates, *_MASKS, find_classes_without_pixels)),
    "image": _Check(
        lambda item, dataset, task: examine_pair(item, dataset),
        (*_IMAGES, find_duplicates, compare_target_channels, *_TARGETS),
    ),
    "class": _Check(
        lambda item, dataset, task: examine_image(item, dataset),
        (*_IMAGES, find_duplicate_cells, check_labels_given, check_boxes, check_classes, check_named, note_imbalance),
    ),
    "lineage": _Check(
        lambda item, dataset, task: examine_movie(item, dataset),
        (*_EVERY, note_drawn_split, find_duplicates, *_MASKS, note_divisions),
    ),
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
        field = error.field or ""
        code = "missing-column" if field.startswith("columns.") else _OPENING_CODES.get(field, "layout")
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
    task: TaskChoice | None = None,
    progress: Callable[[int, int], None] | None = None,
    known_as: str | None = None,
) -> list[Finding]:
    """Read every file of a data set and report what would ruin a training.

    What was found about files in a store is kept until one of them changes; about files of this machine only with
    `known_as`.

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
    task
        What is to be learnt, as a recipe says it; without it nothing is said about classes that masks hold.
    progress
        Called with the number of files done and of all files.
    known_as
        Another text for other contents of the files, or another version of what looks at them.

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
    asked = {**question, "task": None if task is None else task.model_dump(mode="json")}
    return remembered(dataset, asked, lambda: _find(dataset, progress, {**question, "task": task}), known_as)


def _find(dataset: Dataset, progress: Callable[[int, int], None] | None, question: dict[str, Any]) -> list[Finding]:
    facts = read_facts(dataset, task=question["task"], progress=progress)
    return findings_of(Checked(dataset, facts, **question))


def read_facts(
    dataset: Dataset, *, task: TaskChoice | None = None, progress: Callable[[int, int], None] | None = None
) -> dict[Files, Facts]:
    """Read every file of a data set once; parameters are those of :func:`check_dataset`."""
    check = _CHECKS[dataset.truth_kind]
    unique = {files_of(item): item for item in dataset.items}
    facts: dict[Files, Facts] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        examined = pool.map(lambda item: _examined(check, item, dataset, task), unique.values())
        for done, (files, result) in enumerate(zip(unique, examined, strict=True), start=1):
            facts[files] = result
            if progress is not None:
                progress(done, len(unique))
    return facts


def findings_of(checked: Checked) -> list[Finding]:
    """Return what the facts about a data set's own files say, errors first; no file is read again, but for copies."""
    facts = checked.facts
    found = [finding for result in facts.values() for finding in result.findings]
    found += [finding for compare in _CHECKS[checked.dataset.truth_kind].compare for finding in compare(checked)]
    # That a file is unlike the others follows from most of what can be wrong with it.
    said = {finding.file for finding in found}
    pairs = [tuple(checked.name(path) for path in files if path is not None) for files in facts]
    said.update(name for pair in pairs if not said.isdisjoint(pair) for name in pair)
    found += [finding for finding in find_unlike(checked) if finding.file not in said]
    return sort_findings(found)


def _examined(check: _Check, item: Item, dataset: Dataset, task: TaskChoice | None) -> Facts:
    with passing(dataset, [item]) as (here, (local,)):
        return check.examine(local, here, task)
