"""Kinds of tasks by name: subject, kind of answer, and module of each; needs no PyTorch.

An installed package adds a kind with an entry point of the group ``cytoray.tasks`` that names a :class:`TaskKind`.
Where its answers are of a further kind, the groups ``cytoray.truths`` (:mod:`cytoray_services.kinds`) and
``cytoray.answers`` (:mod:`cytoray_serving.answers`) say how data of that kind are read and how its answers are sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any, Literal

from cytoray_analysis.errors import BundleError

Per = Literal["pixel", "cell", "link"]
TruthKind = str  # ``labels``, ``image``, ``class``, ``lineage``, or what an installed package adds
Better = Literal["higher", "lower", "nearer"]


@dataclass(frozen=True)
class Metric:
    """A score.

    Attributes
    ----------
    name
        As it is printed.
    better
        Which direction is better; ``nearer`` to `target`.
    unit
        What it is measured in, for people.
    target
        The best value where that lies in the middle.
    faultless
        Whether it is absent only where there is neither truth nor answer, so that a model without it did nothing wrong.
    """

    name: str
    better: Better
    unit: str
    target: float = 0.0
    faultless: bool = False

    @property
    def bounded(self) -> bool:
        """Whether the best or worst value is 1, so that a difference of 0.1 is as much in one such score as another."""
        return self.unit.endswith("to 1")

    def goodness(self, value: float) -> float:
        """Return the value, turned so that more is better."""
        if self.better == "nearer":
            return -abs(value - self.target)
        return value if self.better == "higher" else -value

    def gain(self, new: float, old: float) -> float:
        """Return by how much `new` is better than `old`, in the metric's unit; negative where it is worse."""
        return self.goodness(new) - self.goodness(old)


@dataclass(frozen=True)
class TaskKind:
    """A kind of task.

    Attributes
    ----------
    per
        What one answer is about: a pixel of an image, a cell cut from it, or a link between two frames of a movie.
    truth
        What a data set must give, and what answers are: instance (or class) labels per pixel, an image, a class per
        cell, or a lineage.
    task
        The class that implements :class:`~cytoray_analysis.tasks.protocol.Task`, as ``module:name``.
    metrics
        Its scores, where :mod:`cytoray_analysis.tasks.metrics` does not know them.
    """

    per: Per
    truth: TruthKind
    task: str
    metrics: tuple[Metric, ...] = ()


_TASKS = "cytoray_analysis.tasks"
TASK_KINDS: Mapping[str, TaskKind] = {
    "segmentation": TaskKind("pixel", "labels", f"{_TASKS}.segmentation:InstanceSegmentation"),
    "semantic_segmentation": TaskKind("pixel", "labels", f"{_TASKS}.semantic:SemanticSegmentation"),
    "classification": TaskKind("cell", "class", f"{_TASKS}.classification:Classification"),
    "label_free": TaskKind("pixel", "image", f"{_TASKS}.label_free:LabelFree"),
    "tracking": TaskKind("link", "lineage", f"{_TASKS}.tracking:Tracking"),
}


@cache
def task_kind(name: str) -> TaskKind:
    """Return the kind of the task of that name.

    Raises
    ------
    BundleError
        There is none, neither here nor in an installed package.
    """
    kinds = TASK_KINDS if name in TASK_KINDS else {**installed("cytoray.tasks"), **TASK_KINDS}
    if name not in kinds:
        raise BundleError(f"expected one of the tasks {sorted(kinds)}, got {name!r}", field="task.name")
    return kinds[name]


def find_kind(name: str, own: Mapping[str, str], group: str) -> Any:
    """Return an object by name: one of our own, given as ``module:name``, or one of an installed package.

    Raises
    ------
    KeyError
        There is none; the error has all names.
    """
    if name in own:
        return resolve_name(own[name])
    further = installed(group)
    if name not in further:
        raise KeyError(", ".join((*own, *further)))
    return further[name]


def installed(group: str) -> dict[str, Any]:
    """Return the entry points of installed packages in a group, by name."""
    return {one.name: one.load() for one in entry_points(group=group)}
