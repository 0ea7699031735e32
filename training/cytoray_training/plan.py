"""What a worker must know: a recipe, a data set, and what follows from the two."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cytoray_analysis.bundle import BundleSpec, ModelInput, NetworkChoice, TaskChoice
from cytoray_analysis.errors import RecipeError
from cytoray_analysis.examples import EXAMPLES, Examples
from cytoray_analysis.images import IntensityStatistics
from cytoray_analysis.networks import NETWORKS
from cytoray_analysis.tasks import TASKS, Task, get_task, truth_of
from cytoray_analysis.tiles import per_axis
from cytoray_services.datasets import Dataset, DataSource
from cytoray_services.settings import load_settings
from cytoray_training.recipe import Recipe, recipe_hash
from cytoray_training.transfer import StartWeights


def data_source(recipe: Recipe) -> DataSource:
    """Return the places that a recipe names, and how they are read."""
    data = recipe.data
    truth = truth_of(recipe.model.task.name)
    # "dataset" is no column of a manifest, but which of several an image came from
    groups = tuple(name for name in data.groups if name != "dataset")
    return DataSource(
        data.roots, truth, data.validation_roots, data.columns, data.where, data.select, groups, data.draw_test
    )


def require_each(recipe: Recipe) -> None:
    """Raise :class:`RecipeError` where planes or frames are taken one by one for a model that takes them together."""
    data = recipe.data
    for axis in data.select.each:
        field = "frame" if axis == "T" else "plane"
        if truth_of(recipe.model.task.name) == "lineage" or axis in data.axes or (axis == "Z" and data.planes):
            raise RecipeError(
                f"expected no {field} each for a model that takes all of them together",
                field=f"data.select.{field}",
                hint="leave it out" if axis == "T" else "leave it out, or train on planes: data.axes: YX",
            )


def chosen_task(recipe: Recipe, decided: Mapping[str, Any]) -> TaskChoice:
    """Return the task of a recipe with the arguments that the data decide, such as the names of classes."""
    chosen = recipe.model.task
    arguments = dict(decided) | {"dimensions": len(recipe.data.axes)}
    accepted = inspect.signature(TASKS[chosen.name]).parameters if chosen.name in TASKS else {}
    known = {name: value for name, value in arguments.items() if name in accepted}
    return TaskChoice(name=chosen.name, arguments=known | chosen.arguments)


def known_metric(task: Task, wanted: str | None) -> str:
    """Return the score that chooses weights.

    Raises
    ------
    RecipeError
        The task does not know the one that a recipe names.
    """
    if wanted is not None and wanted not in task.output.metrics:
        raise RecipeError(
            f"expected one of the task's metrics ({', '.join(task.output.metrics)}), got {wanted!r}",
            field="training.metric",
        )
    return wanted or task.output.metric


@dataclass(frozen=True)
class Plan:
    """One training, ready to be sent to workers.

    Attributes
    ----------
    recipe
        What to do.
    dataset
        Its labelled images, filtered as the recipe says.
    dataset_hash
        Content hash of `dataset`.
    decided
        What the data decide about the arguments of the task.
    home
        State folder; on storage that all nodes share where there are several.
    start
        Whose weights it starts from.
    cache_folder
        Where decoded images lie on nodes that do not say so themselves; None for a folder under `home`.
    warnings
        What the check of the data warned of, each kind in one line.
    """

    recipe: Recipe
    dataset: Dataset
    dataset_hash: str
    decided: Mapping[str, Any]
    home: Path
    start: StartWeights | None = None
    cache_folder: Path | None = None
    warnings: tuple[str, ...] = ()

    @property
    def cache(self) -> Path:
        """Where decoded images lie on this node."""
        return load_settings().cache_folder or self.cache_folder or self.home / "cache"

    @property
    def identity(self) -> str:
        """Hash of recipe, data and starting weights: an interrupted run with the same identity is resumed."""
        start = self.start.identity if self.start else ""
        return hashlib.sha256(f"{recipe_hash(self.recipe)} {self.dataset_hash} {start}".encode()).hexdigest()

    @cached_property
    def chosen_task(self) -> TaskChoice:
        """The task with the arguments that the data decide, such as the names of classes."""
        return chosen_task(self.recipe, self.decided)

    @property
    def task(self) -> Task:
        """The task, built anew."""
        return get_task(self.chosen_task.name, self.chosen_task.arguments)

    @property
    def metric(self) -> str:
        """The score that chooses the best weights."""
        return known_metric(self.task, self.recipe.training.metric)

    @property
    def examples(self) -> Examples:
        """How training draws from the data."""
        return EXAMPLES[self.task.output.per]

    @property
    def crop(self) -> tuple[int, ...]:
        """Sides of a crop, in pixels (or its length in candidate links).

        Raises
        ------
        RecipeError
            The recipe gives another number of sides.
        """
        size, axes = self.recipe.training.crop_size, self.recipe.data.axes
        dimensions = self.examples.dimensions(len(axes))
        if isinstance(size, tuple) and len(size) != dimensions:
            raise RecipeError(
                f"expected {dimensions} sides of a crop for the axes {axes}, got {list(size)}",
                field="training.crop_size",
                hint=f"give {dimensions} sides, or one for all axes",
            )
        return per_axis(size, dimensions)

    @property
    def network(self) -> NetworkChoice:
        """The network with what data and task decide: its inputs and outputs, and what it sees."""
        chosen = self.recipe.model.network
        task = self.task
        decided = {
            "inputs": self.examples.inputs(self.model_input),
            "outputs": task.output.channels,
            "dimensions": len(self.recipe.data.axes),
            "window": self.crop[-1],
        }
        accepted = inspect.signature(NETWORKS[chosen.name]).parameters if chosen.name in NETWORKS else {}
        known = {name: value for name, value in decided.items() if name in accepted}
        started = dict(self.start.arguments) if self.start else {}
        return NetworkChoice(name=chosen.name, arguments=known | started | chosen.arguments)

    @property
    def model_input(self) -> ModelInput:
        """How the model sees an image, before statistics were fitted."""
        data = self.recipe.data
        return ModelInput(
            axes=self.examples.leading_axis + data.axes,
            channels=data.channel_names,
            planes=data.planes,
            window=self.crop if self.examples.windowed else None,
            grey_as_rgb=data.grey_as_rgb and len(data.channel_names) == len("rgb"),
            pixel_size=None if data.pixel_size is None else dict.fromkeys(data.axes, data.pixel_size),
            scaling=data.scaling,
        )

    def bundle_spec(
        self,
        statistics: IntensityStatistics,
        *,
        decode: Mapping[str, float] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> BundleSpec:
        """Describe the trained model."""
        return BundleSpec(
            name=self.recipe.model.name,
            task=self.chosen_task,
            input=self.model_input.model_copy(update={"statistics": statistics}),
            network=self.network,
            decode=dict(decode or {}),
            provenance=dict(provenance or {}),
        )
