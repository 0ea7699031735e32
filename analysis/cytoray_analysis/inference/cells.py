"""An answer for every cell of an image: a window around each goes through the network."""

from __future__ import annotations

import math
import time
from functools import cached_property
from pathlib import Path
from typing import Any, Never

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.cells import Cells, cells_from_labels, read_window, whole_image, window_around
from cytoray_analysis.errors import ImageError, RequestError
from cytoray_analysis.images import Image
from cytoray_analysis.inference.protocol import Inference, Prediction, Progress, Seconds
from cytoray_analysis.model_input import NetworkImage, blank_image, prepare


class CellInference(Inference):
    """An answer for each cell of an image, or for the image as one cell."""

    @property
    def window(self) -> tuple[int, ...]:
        """What the network looks at around a cell, pixels along each spatial axis."""
        return self.spec.input.window or ()

    @cached_property
    def together(self) -> int:
        """How many cells go through the network at once."""
        return max(1, min(256, self.memory_budget // (self.runner.bytes_per_pixel * math.prod(self.window))))

    def answer(self, image: Image, objects: Any) -> Prediction:
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
        answer = self.task.output.of_cells(self.task.decode(logits, self.parameters).values, cells)
        seconds["decode"] = time.perf_counter() - start
        return self._prediction(image, answer, len(cells), seconds, source.warnings, given=objects)

    def outputs(self, image: Image, objects: Any) -> NDArray[np.float32]:
        """Return (N, K) logits of the cells of an image."""
        source, cells = self._prepare(image, objects)
        return self._outputs(source, cells, {"read": 0.0, "network": 0.0})

    def windows(self, image: Image, objects: Any) -> NDArray[np.float32]:
        """Return what the network sees of each cell, (N, C, spatial…) float32, scaled."""
        source, cells = self._prepare(image, objects)
        centres = _centres_in(source, cells)
        return np.stack([read_window(source, window_around(centre, self.window)) for centre in centres])

    def store(self, image: Image, path: Path, progress: Progress | None) -> Never:
        """Refuse: classes are a table, whatever the size of the image."""
        raise RequestError(
            "expected a model of pixels for OME-Zarr, got one that answers for cells",
            field="format",
            hint="request json or csv; the image is read cell by cell",
        )

    def warm_up(self) -> None:
        """Answer for a blank cell."""
        self.answer(blank_image(self.spec.input, self.window), None)

    def _prepare(self, image: Image, objects: Any) -> tuple[NetworkImage, Cells]:
        """Return the scaled image, and the cells in the coordinates of the given image."""
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
            hint="use the masks of the same image",
        )
    return array
