"""Checks of masks of classes, and of the classes of a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from cytoray_analysis.bundle import TaskChoice
from cytoray_analysis.errors import DatasetError
from cytoray_analysis.numbering import dense_numbers
from cytoray_analysis.tasks import task_class
from cytoray_analysis.tasks.class_values import DEFAULT_CLASSES, UNKNOWN, class_indices
from cytoray_services.datasets.check.findings import Checked, Facts, Finding, shorten

_FIELD = "model.task.arguments.values"


def holds_classes(task: TaskChoice) -> bool:
    """Whether the masks of a task contain classes, not objects."""
    import inspect

    return "values" in inspect.signature(task_class(task.name)).parameters


def examine_classes(labels: np.ndarray, name: str, facts: Facts, task: TaskChoice) -> tuple[Facts, list[Finding]]:
    """Count the pixels of each class of a mask, and find numbers without a class."""
    dense, names = dense_numbers(labels)
    values = names[np.flatnonzero(np.bincount(dense.ravel()))]
    facts = replace(facts, values=tuple(int(value) for value in values))
    try:
        indices = class_indices(labels, task.arguments, name)
    except DatasetError as error:
        return facts, [
            Finding("error", name, error.message.removeprefix(f"{name}: "), error.hint or "", "unknown-class")
        ]
    classes = class_names(task)
    if "values" not in task.arguments:
        foreign = [int(value) for value in values if value >= len(classes) and value != UNKNOWN]
        if foreign:
            problem = (
                f"expected classes 0 to {len(classes) - 1} ({', '.join(classes)}) and {UNKNOWN} for unknown pixels, "
                f"got {shorten(foreign)}"
            )
            remedy = f"List every class in model.task.arguments.classes, or define in {_FIELD} what each number means."
            return facts, [Finding("error", name, problem, remedy, "unknown-class")]
    counts = np.bincount(indices.ravel().astype(np.int64), minlength=UNKNOWN + 1)[: len(classes)]
    return replace(facts, classes={index: int(count) for index, count in enumerate(counts) if count}), []


def class_names(task: TaskChoice) -> tuple[str, ...]:
    """Return the classes of a task, by index."""
    return tuple(task.arguments.get("classes", DEFAULT_CLASSES))


def find_classes_without_pixels(checked: Checked) -> Iterator[Finding]:
    """Find classes that no mask contains, and those that are missing in a split."""
    task = checked.task
    if task is None or not holds_classes(task):
        return
    counts: dict[str, Counter[int]] = {split: Counter() for split in checked.dataset.splits}
    values: set[int] = set()
    for items in checked.dataset.images:
        facts = checked.of(items[0])
        values.update(facts.values)
        for item in items:
            counts[item.split].update(facts.classes)
    for index, name in enumerate(class_names(task)):
        lacking = [split for split in checked.required_splits if split in counts and not counts[split][index]]
        if not any(count[index] for count in counts.values()):
            yield _nowhere(name, values, "values" in task.arguments)
        else:
            for split in lacking:
                problem = f"class {name!r} has no pixel in split {split!r}"
                remedy = "Put images with it into every split; otherwise its scores are absent or it is not learnt."
                yield Finding("warning", ".", problem, remedy, "class-without-pixels")


def check_named(checked: Checked) -> Iterator[Finding]:
    """Find classes of cells in the recipe that the data lack, and the reverse."""
    named = () if checked.task is None else checked.task.arguments.get("classes", ())
    if not named:
        return
    labels = {item.label for item in checked.dataset.items if item.label}
    field = "model.task.arguments.classes"
    for name in named:
        if name not in labels:
            problem = f"class {name!r} of {field} has no example"
            yield Finding("error", ".", problem, "Remove the class, or label examples.", "class-missing")
    for label in sorted(labels - set(named)):
        problem = f"expected a class of {field} ({', '.join(named)}), got {label!r}"
        yield Finding("error", ".", problem, "Add it there, or exclude those rows with data.where.", "unknown-class")


def _nowhere(name: str, values: set[int], mapped: bool) -> Finding:
    problem = f"class {name!r} has no pixel in any mask; their values are {shorten(sorted(values))}"
    remedy = "Remove the class, or add images with it."
    if UNKNOWN in values and not mapped:
        problem += f", and {UNKNOWN} stands for unknown pixels"
        remedy = f"Define the class of each number, such as {_FIELD}: {{0: background, {UNKNOWN}: {name}}}."
    return Finding("error", ".", problem, remedy, "class-without-pixels")
