"""Tasks by name, each one file behind the :class:`~cytoray_analysis.tasks.protocol.Task` protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cytoray_analysis.errors import BundleError
from cytoray_analysis.tasks.class_answers import Classes
from cytoray_analysis.tasks.classification import Classification
from cytoray_analysis.tasks.fitting import fit_decode
from cytoray_analysis.tasks.label_free import LabelFree
from cytoray_analysis.tasks.protocol import Block, Decoded, Output, Task, TruthKind
from cytoray_analysis.tasks.segmentation import InstanceSegmentation
from cytoray_analysis.tasks.semantic import SemanticSegmentation
from cytoray_analysis.tasks.tracking import Tracking

TASKS: dict[str, Any] = {
    "segmentation": InstanceSegmentation,
    "semantic_segmentation": SemanticSegmentation,
    "classification": Classification,
    "label_free": LabelFree,
    "tracking": Tracking,
}


def get_task(name: str, arguments: Mapping[str, Any] | None = None) -> Task:
    """Return the task of that name.

    Raises
    ------
    BundleError
        The name is not one of :data:`TASKS`, or the arguments do not fit.
    """
    try:
        task: Task = _known(name)(**(arguments or {}))
    except TypeError as error:
        raise BundleError(f"task {name!r}: {error}", field="task.arguments") from error
    return task


def truth_of(name: str) -> TruthKind:
    """Return what a data set must give for the task of that name, before the task is built.

    Raises
    ------
    BundleError
        The name is not one of :data:`TASKS`.
    """
    kind: TruthKind = _known(name).truth
    return kind


def _known(name: str) -> Any:
    if name not in TASKS:
        raise BundleError(f"expected a task out of {sorted(TASKS)}, got {name!r}", field="task.name")
    return TASKS[name]


__all__ = [
    "TASKS",
    "Block",
    "Classes",
    "Classification",
    "Decoded",
    "InstanceSegmentation",
    "LabelFree",
    "Output",
    "SemanticSegmentation",
    "Task",
    "Tracking",
    "TruthKind",
    "fit_decode",
    "get_task",
    "truth_of",
]
