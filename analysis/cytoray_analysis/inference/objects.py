"""Objects that one model finds for another, such as the cells of a movie for a linker."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.answer_warnings import AnswerWarning, Warnings
from cytoray_analysis.errors import RequestError
from cytoray_analysis.images import Image
from cytoray_analysis.inference.links import segmented_frames
from cytoray_analysis.tasks import Task
from cytoray_analysis.tracking.frames import frame_of


class Segmenter(Protocol):
    """A :class:`~cytoray_analysis.predictor.Predictor` whose answers are labels."""

    @property
    def task(self) -> Task:
        """What the model answers."""
        ...

    def predict(self, image: Image) -> Any:
        """Answer for one image."""
        ...


def require_labels(segmenter: Segmenter, reference: str) -> None:
    """Raise :class:`RequestError` unless a model's answers are labels."""
    kind = segmenter.task.output.truth
    if kind != "labels":
        raise RequestError(
            f"expected a segmentation model, got {reference}, whose answers are of the kind {kind!r}",
            field="segmentation",
            hint="name a model that was trained for segmentation",
        )


@dataclass(frozen=True, eq=False)
class Found:
    """Label images, and what is to be known of them."""

    labels: NDArray[np.integer[Any]]
    warnings: Warnings


def segment(image: Image, segmenter: Segmenter, *, progress: Callable[[int, int], None] | None = None) -> Found:
    """Find the label image of an image, or of every frame of a movie (T, spatial…).

    The masks of a movie are in a temporary file: they are read more than once, and need not fit into memory.

    Parameters
    ----------
    progress
        Called with frames done and frames in all.

    Returns
    -------
    Found
        With the warnings of the segmentation; of a movie the first of each code.

    Raises
    ------
    ImageError
        The segmentation model does not take such an image.
    """
    if "T" not in image.axes:
        prediction = segmenter.predict(image)
        return Found(prediction.answer, prediction.warnings)
    first: dict[str, AnswerWarning] = {warning.code: warning for warning in image.warnings}

    def hear(warnings: Warnings) -> None:
        for warning in warnings:
            first.setdefault(warning.code, warning)

    frames = segmented_frames(image, segmenter, hear)
    with tempfile.TemporaryFile(prefix="cytoray-masks-") as file:
        masks: NDArray[np.integer[Any]] = np.memmap(file, np.int32, mode="w+", shape=frames.shape)
    for index in range(len(masks)):
        masks[index] = frame_of(frames, index)
        if progress:
            progress(index + 1, len(masks))
    return Found(masks, tuple(first.values()))
