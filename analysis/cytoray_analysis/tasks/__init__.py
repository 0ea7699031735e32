"""Tasks by name, each one file behind the :class:`~cytoray_analysis.tasks.protocol.Task` protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cytoray_analysis.errors import BundleError
from cytoray_analysis.tasks.fitting import fit_decode
from cytoray_analysis.tasks.protocol import Block, Decoded, DenseOutput, Task
from cytoray_analysis.tasks.segmentation import InstanceSegmentation

TASKS: dict[str, Callable[..., Task]] = {"segmentation": InstanceSegmentation}


def get_task(name: str, arguments: Mapping[str, Any] | None = None) -> Task:
    """Return the task of that name.

    Raises
    ------
    BundleError
        The name is not one of :data:`TASKS`, or the arguments do not fit.
    """
    if name not in TASKS:
        raise BundleError(f"expected a task out of {sorted(TASKS)}, got {name!r}", field="task.name")
    try:
        return TASKS[name](**(arguments or {}))
    except TypeError as error:
        raise BundleError(f"task {name!r}: {error}", field="task.arguments") from error


__all__ = [
    "TASKS",
    "Block",
    "Decoded",
    "DenseOutput",
    "InstanceSegmentation",
    "Task",
    "fit_decode",
    "get_task",
]
