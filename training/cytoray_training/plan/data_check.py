"""Checks of the data before a training run starts; ``cytoray data check --recipe`` reports the same."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cytoray_analysis.errors import DatasetError, MissingFileError
from cytoray_analysis.tasks import Task, get_task
from cytoray_services.datasets import Dataset, Finding, check_dataset, hash_dataset, read_labelled, task_arguments
from cytoray_services.kinds import data_kind
from cytoray_training.plan.code_version import CHANGED
from cytoray_training.plan.plan import chosen_task, data_source, known_metric
from cytoray_training.recipe import Recipe


@dataclass(frozen=True)
class CheckedData:
    """The data of a recipe, checked as for a training run.

    Attributes
    ----------
    findings
        The findings; an error among them prevents the training run.
    dataset
        As the recipe reads it; None if it cannot be opened.
    decided
        Arguments of the task that follow from the data; empty if there is an error.
    """

    findings: tuple[Finding, ...]
    dataset: Dataset | None = None
    decided: Mapping[str, Any] | None = None


def check_data(recipe: Recipe, *, code: str | None = None) -> CheckedData:
    """Open and check the data of a recipe: everything that a training run refuses or warns about.

    Parameters
    ----------
    code
        Version of this code. With it, findings without an error are cached; a later start with the same file contents
        uses them instead of decoding all images again.

    Raises
    ------
    MissingFileError
        A folder does not exist.
    ForbiddenError, PlatformError
        A store denies access or does not answer.
    RecipeError
        The task cannot be built as the recipe says, or does not have the metric.
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
    """Return a key of all file contents and the code; None if their hash does not cover all inputs of the check."""
    if data_kind(dataset.truth_kind).movies or code.endswith(CHANGED):
        return None
    with contextlib.suppress(MissingFileError):  # the check reports this better
        return f"{hash_dataset(dataset)} {code}"
    return None


def find_nothing_to_score(
    dataset: Dataset, task: Task, arguments: Mapping[str, Any], metric: str, split: str = "val"
) -> Finding | None:
    """Check whether the score that chooses weights would be undefined on the validation images.

    The truth is scored as if it were the answer. One image with the score is sufficient; only if none has it, all are
    pooled.
    """
    kind = data_kind(task.output.truth)
    answers, truths = [], []
    part = dataset.split(split)
    for items in part.images:
        truth = read_labelled(part, items, arguments).truth
        answers.append(kind.perfect(truth, task))
        truths.append(truth)
        if metric in task.score(answers[-1:], truths[-1:]):
            return None
    scores = task.score(answers, truths)
    if metric in scores:
        return None
    problem = f"{metric} has nothing to count in split {split!r}: {kind.nothing}"
    there = [name for name in task.output.metrics if name in scores]
    other = f", or choose a score that is defined: training.metric: {' or '.join(there)}" if there else ""
    remedy = f"Add images with such content to that split{other}."
    return Finding("error", ".", problem, remedy, "nothing-to-score")
