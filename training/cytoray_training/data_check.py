"""What is looked at in the data before a training starts; ``cytoray data check --recipe`` says the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import DatasetError, MissingFileError
from cytoray_analysis.tasks import Task, TruthKind, get_task
from cytoray_services.datasets import Dataset, Finding, check_dataset, hash_dataset, read_labelled, task_arguments
from cytoray_training.plan import chosen_task, data_source, known_metric
from cytoray_training.recipe import Recipe

CHANGED = "+changes"  # ends the version of code that differs from what is committed


@dataclass(frozen=True)
class CheckedData:
    """The data of a recipe, looked at as a training does.

    Attributes
    ----------
    findings
        What was found; an error among them keeps the training from starting.
    dataset
        As the recipe reads it; None where it cannot be opened.
    decided
        What the data decide about the arguments of the task; empty where there is an error.
    """

    findings: tuple[Finding, ...]
    dataset: Dataset | None = None
    decided: Mapping[str, Any] | None = None


def check_data(recipe: Recipe, *, code: str | None = None) -> CheckedData:
    """Open and check the data of a recipe: all that a training would refuse, and what it would warn of.

    Parameters
    ----------
    code
        Version of this code. With it, findings without an error are kept, and a later start with the same contents
        of the files takes them instead of decoding all images once more.

    Raises
    ------
    MissingFileError
        A folder is not there.
    ForbiddenError, PlatformError
        A store does not give it.
    RecipeError
        The task cannot be built as the recipe says, or does not know the metric.
    """
    try:
        dataset = data_source(recipe).open()
    except DatasetError as error:
        code = "missing-column" if (error.field or "").startswith("columns.") else "layout"
        return CheckedData((Finding("error", ".", error.message, error.hint or "", code),))
    findings = check_dataset(
        dataset,
        channels=len(recipe.data.channel_names),
        grey_as_rgb=recipe.data.grey_as_rgb,
        axes="ZYX" if recipe.data.planes else recipe.data.axes,
        task=recipe.model.task,
        known_as=None if code is None else _contents(dataset, code),
    )
    if any(finding.severity == "error" for finding in findings):
        return CheckedData(tuple(findings), dataset)
    decided = task_arguments(dataset.share(recipe.training.label_share, seed=recipe.training.seed))
    choice = chosen_task(recipe, decided)
    task = get_task(choice.name, choice.arguments)
    metric = known_metric(task, recipe.training.metric)
    nothing = find_nothing_to_score(dataset, task, choice.arguments, metric)
    return CheckedData((*([nothing] if nothing else []), *findings), dataset, decided)


def _contents(dataset: Dataset, code: str) -> str | None:
    """Name the contents of all files and the code; None where their hash does not cover all that a check looks at."""
    if dataset.truth_kind == "lineage" or code.endswith(CHANGED):
        return None
    with contextlib.suppress(MissingFileError):  # which the check says better
        return f"{hash_dataset(dataset)} {code}"
    return None


def find_nothing_to_score(
    dataset: Dataset, task: Task, arguments: Mapping[str, Any], metric: str, split: str = "val"
) -> Finding | None:
    """Find out whether the score that chooses weights would be absent on the validation images.

    The truth is scored as if it were the answer. One image that has the score is enough; only where none has are all
    taken together.
    """
    answered = _PERFECT[task.output.truth]
    answers, truths = [], []
    part = dataset.split(split)
    for items in part.images:
        truth = read_labelled(part, items, arguments).truth
        answers.append(answered(truth, task))
        truths.append(truth)
        if metric in task.score(answers[-1:], truths[-1:]):
            return None
    scores = task.score(answers, truths)
    if metric in scores:
        return None
    problem = f"{metric} has nothing to count in split {split!r}: {_NOTHING[task.output.truth]}"
    there = [name for name in task.output.metrics if name in scores]
    other = f", or choose a score that it has: training.metric: {' or '.join(there)}" if there else ""
    remedy = f"Put images that have some into that split{other}."
    return Finding("error", ".", problem, remedy, "nothing-to-score")


def _one_hot(truth: NDArray[np.int64], task: Task) -> NDArray[np.float64]:
    return np.eye(task.output.channels)[np.maximum(truth, 0)]


def _with_deviations(truth: NDArray[Any], task: Task) -> NDArray[Any]:
    """Return a perfect image, with deviations where the task tells some."""
    return np.concatenate([truth] * (task.output.channels // len(truth)))


# What a perfect model would answer, as a task scores it.
_PERFECT: dict[TruthKind, Callable[[Any, Task], Any]] = {
    "labels": lambda truth, task: truth,
    "image": _with_deviations,
    "class": _one_hot,
    "lineage": lambda truth, task: truth,
}
_NOTHING: dict[TruthKind, str] = {
    "labels": "its masks hold no object, or a single class",
    "image": "its target images are constant",
    "class": "no cell has a known class",
    "lineage": "its movies hold none of what it counts, such as divisions",
}
