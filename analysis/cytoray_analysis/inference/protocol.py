"""What every kind of inference offers the predictor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.answer_warnings import Warnings
from cytoray_analysis.bundle import BundleSpec
from cytoray_analysis.devices import Precision
from cytoray_analysis.errors import CytorayError
from cytoray_analysis.images import Image
from cytoray_analysis.inference.runner import NetworkRunner
from cytoray_analysis.tasks import Task

Seconds = dict[str, float]


@dataclass(frozen=True, eq=False)
class Outcome:
    """An answer, before it is said who gave it.

    Attributes
    ----------
    answer
        Labels (spatial…) int32; an image (K, spatial…) float32; :class:`~cytoray_analysis.tasks.class_answers.Classes`;
        or a lineage.
    objects
        Number of objects, cells or tracks; 0 for images.
    seconds
        Time per stage: ``read``, ``network``, ``decode``.
    confidence
        (objects + 1,) how sure each object is, where the task says so.
    warnings
        What the inference assumed or could not know about the image.
    """

    answer: Any
    objects: int
    seconds: Seconds
    confidence: NDArray[np.float32] | None = None
    warnings: Warnings = ()


@dataclass(frozen=True)
class Stored:
    """What is known of an answer that was written into an OME-Zarr.

    Attributes
    ----------
    shape
        Spatial shape.
    objects, seconds, warnings
        As of an :class:`Outcome`.
    """

    shape: tuple[int, ...]
    objects: int
    seconds: Seconds
    warnings: Warnings = ()


def one_by_one(
    answer: Callable[[Image, Any], Outcome], images: Sequence[Image], objects: Sequence[Any]
) -> list[Outcome | CytorayError]:
    """Answer for several images, one after the other; an entry is the error that this image alone caused."""
    results: list[Outcome | CytorayError] = []
    for image, own in zip(images, objects, strict=True):
        try:
            results.append(answer(image, own))
        except CytorayError as error:
            results.append(error)
    return results


class Inference(Protocol):
    """One way of asking a network: for every pixel, for every cell, for every link.

    Attributes
    ----------
    precision
        What the network computes in when nobody says; None leaves it to the device.
    """

    precision: ClassVar[Precision | None]

    def __init__(
        self,
        spec: BundleSpec,
        task: Task,
        runner: NetworkRunner,
        parameters: Mapping[str, float],
        memory_budget: int,
    ) -> None: ...

    def answer(self, image: Image, objects: Any) -> Outcome:
        """Answer for one image."""
        ...

    def answer_batch(self, images: Sequence[Image], objects: Sequence[Any]) -> list[Outcome | CytorayError]:
        """Answer for several images; an entry is the error that this image alone caused."""
        ...

    def outputs(self, image: Image, objects: Any) -> Any:
        """Return the network's outputs for an image, as the task's ``decode`` takes them."""
        ...

    def store(self, image: Image, path: Path, progress: Any) -> Stored:
        """Answer for an image larger than memory into an OME-Zarr."""
        ...

    def warm_up(self) -> None:
        """Answer for something blank, so that the first real image finds everything compiled and allocated."""
        ...
