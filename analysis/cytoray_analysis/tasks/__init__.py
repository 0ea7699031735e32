"""Tasks by name, each one file behind the :class:`~cytoray_analysis.tasks.protocol.Task` protocol."""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any

from cytoray_analysis.errors import BundleError
from cytoray_analysis.kinds import task_kind
from cytoray_analysis.tasks.class_answers import Classes
from cytoray_analysis.tasks.classification import Classification
from cytoray_analysis.tasks.fitting import fit_decode
from cytoray_analysis.tasks.label_free import LabelFree
from cytoray_analysis.tasks.protocol import Block, Decoded, Output, Task
from cytoray_analysis.tasks.segmentation import InstanceSegmentation
from cytoray_analysis.tasks.semantic import SemanticSegmentation
from cytoray_analysis.tasks.tracking import Tracking


def task_class(name: str) -> type[Task]:
    """Return the class of the task of that name.

    Raises
    ------
    BundleError
        There is none: see :func:`~cytoray_analysis.kinds.task_kind`.
    """
    found: type[Task] = resolve_name(task_kind(name).task)
    return found


def get_task(name: str, arguments: Mapping[str, Any] | None = None) -> Task:
    """Return the task of that name.

    Raises
    ------
    BundleError
        There is none, or the arguments do not fit.
    """
    made = task_class(name)
    try:
        return made(**(arguments or {}))
    except TypeError as error:
        raise BundleError(f"task {name!r}: {error}", field="task.arguments") from error


__all__ = [
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
    "fit_decode",
    "get_task",
    "task_class",
]
