"""A lineage for a movie: the objects of its frames are linked, a pair of frames at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.bundle import BundleSpec
from cytoray_analysis.devices import Precision
from cytoray_analysis.errors import CytorayError, RequestError
from cytoray_analysis.images import Image, image_from_array
from cytoray_analysis.inference.protocol import Outcome, Seconds, one_by_one
from cytoray_analysis.inference.runner import NetworkRunner
from cytoray_analysis.tasks import Task
from cytoray_analysis.tracking.frames import FrameStack, as_movie, frame_of
from cytoray_analysis.tracking.judged import JudgedMovie
from cytoray_analysis.tracking.linking import judge_movie


class LinkInference:
    """Links the objects of a movie; memory holds a few frames at a time.

    Parameters are those of :class:`~cytoray_analysis.inference.protocol.Inference`.
    """

    precision: ClassVar[Precision | None] = "fp32"

    def __init__(
        self,
        spec: BundleSpec,
        task: Task,
        runner: NetworkRunner,
        parameters: Mapping[str, float],
        memory_budget: int,
    ) -> None:
        self.spec, self.task, self.runner, self.parameters = spec, task, runner, parameters

    def answer(self, image: Image, objects: Any) -> Outcome:
        """Answer for one movie.

        Parameters
        ----------
        image
            Axes TYX or TZYX.
        objects
            The label images of its frames: an :class:`Image` of the same axes, or an array (T, spatial…).
        """
        start = time.perf_counter()
        seconds = {"read": 0.0, "network": 0.0, "decode": 0.0}
        lineage = self.task.decode(self._judge(image, objects, seconds), self.parameters).values
        # Frames are read and judged while they are being linked.
        seconds["decode"] = time.perf_counter() - start - seconds["network"]
        return Outcome(lineage, len(lineage.track_id), seconds, lineage.confidence)

    def answer_batch(self, images: Sequence[Image], objects: Sequence[Any]) -> list[Outcome | CytorayError]:
        """Answer for several movies, one after the other."""
        return one_by_one(self.answer, images, objects)

    def outputs(self, image: Image, objects: Any) -> JudgedMovie:
        """Return the judged candidates of a movie."""
        return self._judge(image, objects, {"network": 0.0}).held()

    def store(self, image: Image, path: Path, progress: Any) -> tuple[tuple[int, ...], int, Seconds]:
        """Refuse: a lineage is a table beside masks."""
        raise RequestError(
            "a tracking model does not write OME-Zarr",
            field="format",
            hint="ask for zip, csv or geff; a movie is read frame by frame, however long it is",
        )

    def warm_up(self) -> None:
        """Judge a blank candidate."""
        inputs = int(self.spec.network.arguments["inputs"])
        self._scores(np.zeros((inputs, 1), np.float32), {"network": 0.0})

    def _judge(self, image: Image, objects: Any, seconds: Seconds) -> JudgedMovie:
        if objects is None:
            raise RequestError(
                f"{image.source}: expected masks of the movie's frames beside it, got none",
                field="objects",
                hint="give masks, or name a segmentation model that finds the objects",
            )
        movie = as_movie(image)
        masks = objects if isinstance(objects, Image) else image_from_array(objects, movie.axes, source="masks")
        return judge_movie(movie, masks, lambda features: self._scores(features, seconds))

    def _scores(self, features: NDArray[np.float32], seconds: Seconds) -> NDArray[np.float32]:
        if features.shape[1] == 0:  # frames without objects; PyTorch refuses empty convolutions
            return np.zeros((self.task.output.channels, 0), np.float32)
        start = time.perf_counter()
        scores: NDArray[np.float32] = self.runner.forward(np.ascontiguousarray(features[None], dtype=np.float32))[0]
        seconds["network"] += time.perf_counter() - start
        return scores


class _Segmenter(Protocol):
    def predict(self, image: Image) -> Any: ...


def segmented_frames(movie: Image, segmenter: _Segmenter) -> Image:
    """Return the masks that a segmentation model gives for a movie, each frame's when it is read.

    Parameters
    ----------
    movie
        Axes TYX or TZYX.
    segmenter
        A :class:`~cytoray_analysis.predictor.Predictor` whose answers are labels.
    """
    frames = as_movie(movie)

    def masks(index: int) -> NDArray[Any]:
        frame = image_from_array(
            frame_of(frames, index),
            frames.axes[1:],
            pixel_size=frames.pixel_size,
            source=f"{movie.source}, frame {index}",
        )
        labels: NDArray[Any] = segmenter.predict(frame).answer
        return labels

    stack = FrameStack(masks, frames.shape, np.dtype(np.int32))
    return image_from_array(stack, frames.axes, pixel_size=frames.pixel_size, source=f"masks of {movie.source}")
