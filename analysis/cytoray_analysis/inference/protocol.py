"""The interface of inference for the predictor, and its result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.answer_warnings import Warnings, join_warnings
from cytoray_analysis.bundle import BundleSpec
from cytoray_analysis.devices import Precision
from cytoray_analysis.errors import CytorayError
from cytoray_analysis.images import Image
from cytoray_analysis.inference.runner import NetworkRunner
from cytoray_analysis.kinds import TruthKind
from cytoray_analysis.tasks import Task

Seconds = dict[str, float]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ModelIdentity:
    """Which model gave an answer.

    Attributes
    ----------
    version
        Its version in the registry; None for a bundle folder.
    digest
        SHA-256 of the bundle's specification and weights.
    """

    name: str
    version: str | None
    digest: str


@dataclass(frozen=True, eq=False)
class Prediction:
    """An answer with its image and its model.

    Attributes
    ----------
    answer
        By `kind`: ``labels`` a label image, spatial axes, int32, objects numbered 1 to n (or classes per pixel);
        ``image`` float32 (channels, spatial…); ``class`` a :class:`~cytoray_analysis.tasks.Classes`; ``lineage`` a
        :class:`~cytoray_analysis.tracking.Lineage`. Of an image larger than memory the zarr array that holds it.
    objects
        Number of objects, cells or tracks; 0 for images.
    seconds
        Time spent per stage: ``read`` (decoding and scaling the image), ``network``, ``decode``.
    image
        The image or movie.
    inference
        What gave it.
    given
        The objects that were given with the image.
    confidence
        (objects + 1,) float32 how sure each object is, 0 to 1, entry 0 meaning nothing; None where the task does
        not say.
    warnings
        What was assumed, left out or unknown on the way to this answer.
    axes
        Of an answer in pixels and of the boxes of cells, such as ``YX``; ``TYX`` or ``ZYX`` where every frame or plane
        was answered by itself. Empty for lineages.
    joined
        The axes of separate answers along which their objects were joined, such as Z; empty for none.
    """

    answer: Any
    objects: int
    seconds: Seconds
    image: Image
    inference: Inference
    given: Any = None
    confidence: NDArray[np.float32] | None = None
    warnings: Warnings = ()
    axes: str = ""
    joined: str = ""

    @property
    def kind(self) -> TruthKind:
        """What the answer is."""
        return self.inference.task.output.truth

    @property
    def scored(self) -> Any:
        """What the task scores: of cells the values without their places, else the answer itself."""
        return self.answer.values if self.inference.task.output.per == "cell" else self.answer

    @property
    def model(self) -> ModelIdentity:
        """Which model gave it."""
        return self.inference.identity

    @property
    def spec(self) -> BundleSpec:
        """What its bundle says of the model."""
        return self.inference.spec

    @property
    def stacked(self) -> str:
        """The axes along which every entry has objects of its own, such as Z; empty for none."""
        return self.axes[: -len(self.spec.input.spatial_axes)].removesuffix(self.joined)


class Inference(ABC):
    """One way of asking a network: for every pixel, for every cell, for every link.

    Parameters
    ----------
    spec, task, runner
        The model.
    parameters
        Of the task's decoding.
    memory_budget
        Bytes that one prediction may use in addition to the image and its answer.
    identity
        Which model it is.

    Attributes
    ----------
    precision
        What the network computes in by default; None leaves it to the device.
    """

    precision: ClassVar[Precision | None] = None

    def __init__(
        self,
        spec: BundleSpec,
        task: Task,
        runner: NetworkRunner,
        parameters: Mapping[str, float],
        memory_budget: int,
        identity: ModelIdentity,
    ) -> None:
        self.spec, self.task, self.runner, self.parameters = spec, task, runner, parameters
        self.memory_budget, self.identity = memory_budget, identity

    @abstractmethod
    def answer(self, image: Image, objects: Any) -> Prediction:
        """Answer for one image."""

    def answer_batch(self, images: Sequence[Image], objects: Sequence[Any]) -> list[Prediction | CytorayError]:
        """Answer for several images, one after the other; an entry is the error of only this image."""
        results: list[Prediction | CytorayError] = []
        for image, own in zip(images, objects, strict=True):
            try:
                results.append(self.answer(image, own))
            except CytorayError as error:
                results.append(error)
        return results

    @abstractmethod
    def outputs(self, image: Image, objects: Any) -> Any:
        """Return the network's outputs for an image, as the task's ``decode`` takes them."""

    @abstractmethod
    def store(self, image: Image, path: Path, progress: Progress | None) -> Prediction:
        """Answer for an image larger than memory into an OME-Zarr, which must not exist."""

    @abstractmethod
    def warm_up(self) -> None:
        """Answer for something blank, so that the first real image finds everything compiled and allocated."""

    def _prediction(
        self, image: Image, answer: Any, objects: int, seconds: Seconds, warnings: Warnings, **more: Any
    ) -> Prediction:
        """Return an answer; `warnings` are those that the image does not carry."""
        axes = "" if self.task.output.per == "link" else self.spec.input.spatial_axes
        warned = join_warnings(image.warnings, warnings)
        return Prediction(answer, objects, seconds, image, self, warnings=warned, axes=axes, **more)
