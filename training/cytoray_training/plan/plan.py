"""The input of a worker: a recipe, a data set, and everything derived from them."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cytoray_analysis.bundle import BundleSpec, ModelInput, NetworkChoice, TaskChoice
from cytoray_analysis.errors import RecipeError
from cytoray_analysis.examples import EXAMPLES, Examples
from cytoray_analysis.images import IntensityStatistics
from cytoray_analysis.kinds import task_kind
from cytoray_analysis.networks import NETWORKS
from cytoray_analysis.tasks import Task, get_task, task_class
from cytoray_analysis.tiles import per_axis
from cytoray_services.datasets import Dataset, DataSource, hash_dataset
from cytoray_services.settings import load_settings
from cytoray_training.plan.transfer import StartWeights
from cytoray_training.recipe import Recipe, changed_recipe, recipe_hash


def data_source(recipe: Recipe) -> DataSource:
    """Return the data locations of a recipe, and how they are read."""
    data = recipe.data
    truth = task_kind(recipe.model.task.name).truth
    # "dataset" is not a column of a manifest, but the source of an image among several data sets
    groups = tuple(name for name in data.groups if name != "dataset")
    return DataSource(
        data.roots,
        truth,
        data.validation_roots,
        data.columns,
        data.where,
        data.select,
        groups,
        data.draw_test,
        data.within,
        data.draw_validation,
    )


def chosen_task(recipe: Recipe, decided: Mapping[str, Any]) -> TaskChoice:
    """Return the task of a recipe with the arguments derived from the data, such as the names of classes."""
    chosen = recipe.model.task
    arguments = dict(decided) | {"dimensions": len(recipe.data.axes)}
    accepted = inspect.signature(task_class(chosen.name)).parameters
    known = {name: value for name, value in arguments.items() if name in accepted}
    return TaskChoice(name=chosen.name, arguments=known | chosen.arguments)


def known_metric(task: Task, wanted: str | None) -> str:
    """Return the score that chooses weights.

    Raises
    ------
    RecipeError
        The task does not have the metric of the recipe.
    """
    if wanted is not None and wanted not in task.output.metrics:
        raise RecipeError(
            f"expected one of the task's metrics ({', '.join(task.output.metrics)}), got {wanted!r}",
            field="training.metric",
        )
    return wanted or task.output.metric


@dataclass(frozen=True)
class Plan:
    """One training run, ready to be sent to workers.

    Attributes
    ----------
    recipe
        The recipe.
    dataset
        Its labelled images, filtered by the recipe.
    dataset_hash
        Content hash of `dataset`.
    decided
        Arguments of the task derived from the data.
    home
        State folder; with several nodes, on storage that all of them share.
    start
        The initial weights.
    cache_folder
        Folder of decoded images on nodes without their own setting; None for a folder in `home`.
    warnings
        Warnings of the data check, one line each.
    """

    recipe: Recipe
    dataset: Dataset
    dataset_hash: str
    decided: Mapping[str, Any]
    home: Path
    start: StartWeights | None = None
    cache_folder: Path | None = None
    warnings: tuple[str, ...] = ()

    def on(self, dataset: Dataset) -> Plan:
        """Return the plan of the same recipe for other data."""
        return replace(self, dataset=dataset, dataset_hash=hash_dataset(dataset))

    def changed(self, values: Mapping[str, Any]) -> Plan:
        """Return the plan of a recipe with other values at dotted paths, for the same data.

        Raises
        ------
        RecipeError
            See :func:`cytoray_training.recipe.changed_recipe`.
        """
        return replace(self, recipe=changed_recipe(self.recipe, values))

    @property
    def cache(self) -> Path:
        """Folder of decoded images on this node."""
        return load_settings().cache_folder or self.cache_folder or self.home / "cache"

    @property
    def identity(self) -> str:
        """Hash of recipe, data, start and last layer: an interrupted run with the same identity is resumed."""
        start = self.start.identity if self.start else ""
        finish = self.network.arguments.get("finish", "")
        return hashlib.sha256(f"{recipe_hash(self.recipe)} {self.dataset_hash} {start}{finish}".encode()).hexdigest()

    @cached_property
    def chosen_task(self) -> TaskChoice:
        """The task with the arguments derived from the data, such as the names of classes."""
        return chosen_task(self.recipe, self.decided)

    @property
    def task(self) -> Task:
        """A new instance of the task."""
        return get_task(self.chosen_task.name, self.chosen_task.arguments)

    @property
    def metric(self) -> str:
        """The score that chooses the best weights."""
        return known_metric(self.task, self.recipe.training.metric)

    @property
    def examples(self) -> Examples:
        """How crops are sampled from the data."""
        return EXAMPLES[self.task.output.per]

    @property
    def crop(self) -> tuple[int, ...]:
        """Side lengths of a crop, in pixels (or its length in candidate links).

        Raises
        ------
        RecipeError
            The recipe has another number of side lengths.
        """
        size, axes = self.recipe.training.crop_size, self.recipe.data.axes
        dimensions = self.examples.dimensions(len(axes))
        if isinstance(size, tuple) and len(size) != dimensions:
            raise RecipeError(
                f"expected {dimensions} side lengths of a crop for the axes {axes}, got {list(size)}",
                field="training.crop_size",
                hint=f"set {dimensions} side lengths, or one for all axes",
            )
        return per_axis(size, dimensions)

    @property
    def network(self) -> NetworkChoice:
        """The network with everything derived from data and task: its inputs and outputs."""
        chosen = self.recipe.model.network
        task = self.task
        decided = {
            "inputs": self.examples.inputs(self.model_input),
            "outputs": task.output.channels,
            "dimensions": len(self.recipe.data.axes),
            "window": self.crop[-1],
            "finish": "pixels",
        }
        accepted = inspect.signature(NETWORKS[chosen.name]).parameters if chosen.name in NETWORKS else {}
        known = {name: value for name, value in decided.items() if name in accepted}
        started = dict(self.start.arguments) if self.start else {}
        return NetworkChoice(name=chosen.name, arguments=known | started | chosen.arguments)

    @property
    def model_input(self) -> ModelInput:
        """The model input, before its statistics are fitted."""
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
        diameter: float | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> BundleSpec:
        """Describe the trained model; until its decoding is fitted, with that of its start."""
        return BundleSpec(
            name=self.recipe.model.name,
            task=self.chosen_task,
            input=self.model_input.model_copy(update={"statistics": statistics, "diameter": diameter}),
            network=self.network,
            decode=dict(decode or (self.start.decode if self.start else {})),
            provenance=dict(provenance or {}),
        )
