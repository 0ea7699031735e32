"""An answer for every cell of an image: a window around each goes through the network."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.bundle import BundleSpec
from cytoray_analysis.cells import Cells, cells_from_labels, read_window, whole_image, window_around
from cytoray_analysis.devices import Precision
from cytoray_analysis.errors import CytorayError, ImageError, RequestError
from cytoray_analysis.images import Image
from cytoray_analysis.inference.protocol import Outcome, Seconds, Stored, one_by_one
from cytoray_analysis.inference.runner import NetworkRunner
from cytoray_analysis.model_input import NetworkImage, blank_image, prepare
from cytoray_analysis.tasks import Classes, Task


class CellInference:
    """Class probabilities for each cell of an image, or for the image as one cell.

    Parameters are those of :class:`~cytoray_analysis.inference.protocol.Inference`.
    """

    precision: ClassVar[Precision | None] = None

    def __init__(
        self,
        spec: BundleSpec,
        task: Task,
        runner: NetworkRunner,
        parameters: Mapping[str, float],
        memory_budget: int,
    ) -> None:
        self.spec, self.task, self.runner, self.parameters = spec, task, runner, parameters
        self.window = spec.input.window or ()
        pixels = math.prod(self.window)
        self.together = max(1, min(256, memory_budget // (runner.bytes_per_pixel * pixels)))

    def answer(self, image: Image, objects: Any) -> Outcome:
        """Answer for the cells of one image.

        Parameters
        ----------
        objects
            :class:`~cytoray_analysis.cells.Cells`, a label image (spatial…) whose objects are the cells, or None for
            an image that shows one cell, which is resampled to the window.
        """
        start = time.perf_counter()
        source, cells = self._prepare(image, objects)
        seconds = {"read": time.perf_counter() - start, "network": 0.0, "decode": 0.0}
        logits = self._outputs(source, cells, seconds)
        start = time.perf_counter()
        probabilities = self.task.decode(logits, self.parameters).values
        seconds["decode"] = time.perf_counter() - start
        names = tuple(self.spec.task.arguments["classes"])
        return Outcome(Classes(names, probabilities, cells), len(cells), seconds, warnings=source.warnings)

    def answer_batch(self, images: Sequence[Image], objects: Sequence[Any]) -> list[Outcome | CytorayError]:
        """Answer for several images, one after the other: the cells of one fill a batch."""
        return one_by_one(self.answer, images, objects)

    def outputs(self, image: Image, objects: Any) -> NDArray[np.float32]:
        """Return (N, K) logits of the cells of an image."""
        source, cells = self._prepare(image, objects)
        return self._outputs(source, cells, {"read": 0.0, "network": 0.0})

    def windows(self, image: Image, objects: Any) -> NDArray[np.float32]:
        """Return what the network sees of each cell, (N, C, spatial…) float32, scaled."""
        source, cells = self._prepare(image, objects)
        centres = _centres_in(source, cells)
        return np.stack([read_window(source, window_around(centre, self.window)) for centre in centres])

    def store(self, image: Image, path: Path, progress: Any) -> Stored:
        """Refuse: classes are a table, whatever the size of the image."""
        raise RequestError(
            "a model that answers for cells does not write OME-Zarr",
            field="format",
            hint="ask for json or csv; the image is read cell by cell",
        )

    def warm_up(self) -> None:
        """Answer for a blank cell."""
        self.answer(blank_image(self.spec.input, self.window), None)

    def _prepare(self, image: Image, objects: Any) -> tuple[NetworkImage, Cells]:
        """Return the scaled image, and the cells as they lie in the image that was given."""
        if objects is None:
            source = prepare(image, self.spec.input, shape=self.window)
            return source, whole_image(source.original_shape)
        cells = objects if isinstance(objects, Cells) else cells_from_labels(_check_labels(objects, image))
        if cells.boxes.shape[2] != self.runner.dimensions:
            raise RequestError(
                f"{image.source}: expected boxes with {self.runner.dimensions} axes, got {cells.boxes.shape[2]}",
                field="boxes",
                hint=f"the model works on {self.spec.input.spatial_axes}",
            )
        return prepare(image, self.spec.input), cells

    def _outputs(self, source: NetworkImage, cells: Cells, seconds: Seconds) -> NDArray[np.float32]:
        found = [np.zeros((0, self.task.output.channels), np.float32)]
        centres = _centres_in(source, cells)
        for first in range(0, len(cells), self.together):
            start = time.perf_counter()
            batch = np.stack(
                [
                    read_window(source, window_around(centre, self.window))
                    for centre in centres[first : first + self.together]
                ]
            )
            read = time.perf_counter()
            found.append(self.runner.forward(batch))
            seconds["read"] += read - start
            seconds["network"] += time.perf_counter() - read
        return np.concatenate(found)


def _centres_in(source: NetworkImage, cells: Cells) -> NDArray[np.float64]:
    """Return the middle of each cell in the image as it was resampled."""
    zoom = [now / before for now, before in zip(source.shape, source.original_shape, strict=True)]
    return cells.scaled(zoom).centres


def _check_labels(labels: Any, image: Image) -> NDArray[np.integer[Any]]:
    array: NDArray[np.integer[Any]] = np.asarray(labels)
    if array.shape != image.spatial_shape:
        raise ImageError(
            f"{image.source}: expected a label image of the image's size {image.spatial_shape}, got {array.shape}",
            field="objects",
            hint="give the masks of this very image",
        )
    return array
