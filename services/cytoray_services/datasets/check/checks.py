"""The check of a data set: the checks for each kind of truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cytoray_analysis.bundle import TaskChoice
from cytoray_analysis.errors import DatasetError
from cytoray_analysis.kinds import TruthKind
from cytoray_services.datasets.check.across import (
    compare_axes,
    compare_channels,
    find_missing_splits,
    find_shared_truths,
    find_split_groups,
    note_drawn_test,
    warn_of_unused,
)
from cytoray_services.datasets.check.copies import find_copies
from cytoray_services.datasets.check.findings import Checked, Facts, Files, Finding, files_of, sort_findings
from cytoray_services.datasets.check.memory import remembered
from cytoray_services.datasets.check.unlike import find_unlike
from cytoray_services.datasets.dataset import Dataset, Item
from cytoray_services.datasets.manifest import open_dataset
from cytoray_services.datasets.remote.fetching import passing
from cytoray_services.kinds import DataKind, data_kind

REQUIRED_SPLITS = ("train", "val")
_THREADS = 4
_OPENING_CODES = {"split": "unknown-split", "name": "ambiguous-name"}


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


def open_for_check(
    root: str | Path, *, columns: Mapping[str, str] | None = None, truth: TruthKind | None = None
) -> Dataset | Finding:
    """Open a data set, or return the finding that prevents it.

    Raises
    ------
    MissingFileError
        The folder does not exist.
    """
    try:
        return open_dataset(root, columns=columns, truth=truth)
    except DatasetError as error:
        field = error.field or ""
        code = "missing-column" if field.startswith("columns.") else _OPENING_CODES.get(field, "layout")
        return Finding("error", ".", error.message, error.hint or "", code)


def usual_splits(dataset: Dataset) -> tuple[str, ...]:
    """Return the splits that a folder should have: train and val, unless it has a single image or movie.

    A recipe may set other folders for validation.
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
    known_as: str | None = None,
) -> list[Finding]:
    """Read every file of a data set and report problems that would damage a training run.

    Findings about files in a store are cached until one of them changes; those about local files only with
    `known_as`.

    Parameters
    ----------
    dataset
        The data set.
    axes
        Spatial axes of the model, ``"YX"`` or ``"ZYX"``; by default those of most images.
    channels
        Number of channels of the model; by default that of most images.
    grey_as_rgb
        Whether grey images are used as colour images.
    required_splits
        Splits that must have images.
    task
        The task of the recipe; without it, classes in masks are not checked.
    known_as
        A text that changes with the contents of the files or the version of the checks.

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
    return remembered(dataset, asked, lambda: _find(dataset, {**question, "task": task}), known_as)


def _find(dataset: Dataset, question: dict[str, Any]) -> list[Finding]:
    facts = read_facts(dataset, task=question["task"])
    return findings_of(Checked(dataset, facts, **question))


def read_facts(dataset: Dataset, *, task: TaskChoice | None = None) -> dict[Files, Facts]:
    """Read every file of a data set once; parameters are those of :func:`check_dataset`."""
    kind = data_kind(dataset.truth_kind)
    unique = {files_of(item): item for item in dataset.items}
    with ThreadPoolExecutor(_THREADS) as pool:
        examined = pool.map(lambda item: _examined(kind, item, dataset, task), unique.values())
        return dict(zip(unique, examined, strict=True))


def findings_of(checked: Checked) -> list[Finding]:
    """Return the findings of a data set from its facts, errors first, without reading files except for copies."""
    facts, compared = checked.facts, data_kind(checked.dataset.truth_kind).compare
    found = [finding for result in facts.values() for finding in result.findings]
    found += [finding for compare in (*_EVERY, *compared) for finding in compare(checked)]
    # Most other problems of a file also make it differ from the others.
    said = {finding.file for finding in found}
    pairs = [tuple(checked.name(path) for path in files if path is not None) for files in facts]
    said.update(name for pair in pairs if not said.isdisjoint(pair) for name in pair)
    found += [finding for finding in find_unlike(checked) if finding.file not in said]
    return sort_findings(found)


def _examined(kind: DataKind, item: Item, dataset: Dataset, task: TaskChoice | None) -> Facts:
    with passing(dataset, [item]) as (here, (local,)):
        return kind.examine(local, here, task)
