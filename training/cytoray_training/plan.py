"""What a worker must know: a recipe, a data set, and what follows from the two."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytoray_analysis.bundle import BundleSpec, ModelInput, NetworkChoice
from cytoray_analysis.images import IntensityStatistics
from cytoray_analysis.tasks import Task, get_task
from cytoray_services.datasets import Dataset
from cytoray_training.recipe import Recipe, recipe_hash


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
    home
        State folder; on storage that all nodes share where there are several.
    """

    recipe: Recipe
    dataset: Dataset
    dataset_hash: str
    home: Path

    @property
    def identity(self) -> str:
        """Hash of recipe and data: an interrupted run with the same identity is resumed."""
        return hashlib.sha256(f"{recipe_hash(self.recipe)} {self.dataset_hash}".encode()).hexdigest()

    @property
    def task(self) -> Task:
        """The task, built anew."""
        return get_task(self.recipe.model.task.name, self.recipe.model.task.arguments)

    @property
    def network(self) -> NetworkChoice:
        """The network with its number of inputs and outputs, which the data and the task decide."""
        chosen = self.recipe.model.network
        sides = {"inputs": len(self.recipe.data.channel_names), "outputs": self.task.output.channels}
        return NetworkChoice(name=chosen.name, arguments=sides | chosen.arguments)

    @property
    def model_input(self) -> ModelInput:
        """How the model sees an image, before statistics were fitted."""
        data = self.recipe.data
        return ModelInput(
            axes="CYX",
            channels=data.channel_names,
            grey_as_rgb=data.grey_as_rgb and len(data.channel_names) == len("rgb"),
            pixel_size=None if data.pixel_size is None else dict.fromkeys("YX", data.pixel_size),
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
            task=self.recipe.model.task,
            input=self.model_input.model_copy(update={"statistics": statistics}),
            network=self.network,
            decode=dict(decode or {}),
            provenance=dict(provenance or {}),
        )
