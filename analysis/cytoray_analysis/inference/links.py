"""A lineage for a movie: the objects of its frames are linked, a pair of frames at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Never, Protocol

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.answer_warnings import AnswerWarning, Warnings
from cytoray_analysis.devices import Precision
from cytoray_analysis.errors import RequestError
from cytoray_analysis.images import Image, image_from_array
from cytoray_analysis.inference.protocol import Inference, Prediction, Progress, Seconds
from cytoray_analysis.tracking.frames import FrameStack, as_movie, frame_of
from cytoray_analysis.tracking.judged import JudgedMovie
from cytoray_analysis.tracking.lineage import Lineage
from cytoray_analysis.tracking.linking import judge_movie


class LinkInference(Inference):
    """Links the objects of a movie; memory holds a few frames at a time."""

    precision: ClassVar[Precision | None] = "fp32"

    def answer(self, image: Image, objects: Any) -> Prediction:
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
        about = objects.warnings if isinstance(objects, Image) else ()
        warnings = (*about, *_binary_masks(lineage, image.source))
        more = {"given": objects, "confidence": lineage.confidence}
        return self._prediction(image, lineage, len(lineage.track_id), seconds, warnings, **more)

    def outputs(self, image: Image, objects: Any) -> JudgedMovie:
        """Return the judged candidates of a movie."""
        return self._judge(image, objects, {"network": 0.0}).held()

    def store(self, image: Image, path: Path, progress: Progress | None) -> Never:
        """Refuse: a lineage is a table in addition to masks."""
        raise RequestError(
            "expected a model of pixels for OME-Zarr, got a tracking model",
            field="format",
            hint="request zip, csv or geff; a movie is read frame by frame, whatever its length",
        )

    def warm_up(self) -> None:
        """Judge a blank candidate."""
        inputs = int(self.spec.network.arguments["inputs"])
        self._scores(np.zeros((inputs, 1), np.float32), {"network": 0.0})

    def _judge(self, image: Image, objects: Any, seconds: Seconds) -> JudgedMovie:
        if objects is None:
            raise RequestError(
                f"{image.source}: expected masks of the movie's frames, found none",
                field="objects",
                hint="use masks, or name a segmentation model that finds the objects",
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


def _binary_masks(lineage: Lineage, source: str) -> Warnings:
    """Warn of masks with a single number for pieces that do not touch: they are linked as one cell."""
    if lineage.masks is None or len(np.unique(lineage.label)) != 1:
        return ()
    from scipy.ndimage import label

    frame = int(lineage.frame[0])
    pieces = int(label(lineage.masks.read(frame))[1])
    if pieces < 2:
        return ()
    sentence = (
        f"{source}: the masks have one number, {int(lineage.label[0])}, for {pieces} pieces in frame {frame}; they "
        "were linked as one cell. Use a unique number for each object"
    )
    return (AnswerWarning("binary-masks", sentence),)


class _Segmenter(Protocol):
    def predict(self, image: Image) -> Any: ...


def segmented_frames(movie: Image, segmenter: _Segmenter, tell: Callable[[Warnings], object] | None = None) -> Image:
    """Return the masks that a segmentation model gives for a movie, each frame's when it is read.

    Parameters
    ----------
    movie
        Axes TYX or TZYX.
    segmenter
        A :class:`~cytoray_analysis.predictor.Predictor` whose answers are labels.
    tell
        Called with the warnings of each frame when it was answered.
    """
    frames = as_movie(movie)

    def masks(index: int) -> NDArray[Any]:
        frame = image_from_array(
            frame_of(frames, index),
            frames.axes[1:],
            channels=frames.channels,
            pixel_size=frames.pixel_size,
            source=f"{movie.source}, frame {index}",
        )
        prediction = segmenter.predict(frame)
        if tell is not None and prediction.warnings:
            tell(prediction.warnings)
        labels: NDArray[Any] = prediction.answer
        return labels

    stack = FrameStack(masks, frames.shape, np.dtype(np.int32))
    return image_from_array(stack, frames.axes, pixel_size=frames.pixel_size, source=f"masks of {movie.source}")
