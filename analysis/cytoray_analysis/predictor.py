"""The only inference path: evaluation, endpoints and bulk jobs all call :class:`Predictor`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cytoray_analysis.answer_warnings import Warnings, join_warnings
from cytoray_analysis.bundle import Bundle
from cytoray_analysis.devices import Precision
from cytoray_analysis.errors import CytorayError, RequestError
from cytoray_analysis.images import Image
from cytoray_analysis.inference import INFERENCE, NetworkRunner, Outcome
from cytoray_analysis.inference.blocks import BlockAnswer, Blocks
from cytoray_analysis.inference.pixels import PixelInference
from cytoray_analysis.model_input import resampled
from cytoray_analysis.tasks import TruthKind, get_task

MEMORY_BUDGET = 2**30  # bytes; with the process itself, about two gigabytes


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
    """An answer.

    Attributes
    ----------
    answer
        By `kind`: ``labels`` a label image, spatial axes, int32, objects numbered 1 to n (or classes per pixel);
        ``image`` float32 (channels, spatial…); ``class`` a :class:`~cytoray_analysis.tasks.Classes`; ``lineage`` a
        :class:`~cytoray_analysis.tracking.Lineage`.
    kind
        What the answer is.
    objects
        Number of objects, cells or tracks; 0 for images.
    task
        Name of the task.
    seconds
        Time spent per stage: ``read`` (decoding and scaling the image), ``network``, ``decode``.
    model
        Which model gave it.
    confidence
        (objects + 1,) float32 how sure each object is, 0 to 1, entry 0 meaning nothing; None where the task does
        not say.
    warnings
        What was assumed, left out or unknown on the way to this answer.
    axes
        Of an answer in pixels and of the boxes of cells, such as ``YX``; ``TYX`` or ``ZYX`` where every frame or plane
        was answered by itself. Empty for lineages.
    """

    answer: Any
    kind: TruthKind
    objects: int
    task: str
    seconds: dict[str, float]
    model: ModelIdentity
    confidence: NDArray[np.float32] | None = None
    warnings: Warnings = ()
    axes: str = ""


@dataclass(frozen=True)
class StoredPrediction:
    """An answer that was written to disk block by block.

    Attributes
    ----------
    path
        The OME-Zarr.
    shape
        Spatial shape.
    objects
        Number of objects.
    warnings
        What was assumed, left out or unknown on the way to this answer.
    """

    path: Path
    shape: tuple[int, ...]
    objects: int
    task: str
    seconds: dict[str, float]
    model: ModelIdentity
    warnings: Warnings = ()


class Predictor:
    """Answers for images, from one bundle.

    Parameters
    ----------
    bundle
        The model.
    device
        Such as ``"cpu"`` or ``"cuda:0"``; an accelerator when there is one by default.
    precision
        ``"fp32"`` or ``"bf16"``; by default fp32 for links, whose networks are small, and else bf16 where the device
        computes it natively.
    memory_budget
        Bytes that one prediction may take beside the image and its answer; sets the tile size.
    threads
        CPU threads of this process; as PyTorch finds them by default.
    version
        Version of the model in the registry, for the answers to carry.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str | None = None,
        precision: Precision | None = None,
        memory_budget: int = MEMORY_BUDGET,
        threads: int | None = None,
        version: str | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.bundle = bundle
        self.memory_budget = memory_budget
        self.task = get_task(bundle.spec.task.name, bundle.spec.task.arguments)
        self.identity = ModelIdentity(bundle.spec.name, version, bundle.digest)
        kind = INFERENCE[self.task.output.per]
        self.runner = NetworkRunner(bundle, device, precision or kind.precision)
        self.parameters = self.task.output.defaults() | bundle.spec.decode
        self.inference = kind(bundle.spec, self.task, self.runner, self.parameters, memory_budget)

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.runner.device

    @property
    def precision(self) -> Precision:
        """What the network computes in."""
        return self.runner.precision

    def predict(self, image: Image, objects: Any = None) -> Prediction:
        """Answer for one image that fits into memory, or for a movie, which need not.

        Parameters
        ----------
        image
            What to answer for.
        objects
            Where the objects are, for models that answer about given ones: a label image of the size of the image,
            :class:`~cytoray_analysis.cells.Cells`, or the label images of a movie's frames.

        Raises
        ------
        ImageError
            The image cannot be used: see :func:`cytoray_analysis.model_input.prepare`.
        RequestError
            The model takes no objects, or none such.
        """
        return self._prediction(image, self.inference.answer(image, objects))

    def predict_batch(
        self, images: Sequence[Image], objects: Sequence[Any] | None = None
    ) -> list[Prediction | CytorayError]:
        """Answer for several images; those of one shape go through the network together.

        Returns
        -------
        list
            One entry per image, in order: its answer, or the error that this image alone caused.
        """
        outcomes = self.inference.answer_batch(images, objects or [None] * len(images))
        return [
            one if isinstance(one, CytorayError) else self._prediction(image, one)
            for image, one in zip(images, outcomes, strict=True)
        ]

    def predict_to_zarr(
        self, image: Image, path: str | Path, *, progress: Callable[[int, int], None] | None = None
    ) -> StoredPrediction:
        """Answer for an image larger than memory, block by block, into an OME-Zarr.

        Parameters
        ----------
        path
            Where to write; must not exist.
        progress
            Called with blocks done and blocks in all.

        Raises
        ------
        ImageError
            The image cannot be used, or its pixel size differs from the model's.
        RequestError
            The model's answers are no images.
        """
        stored = self.inference.store(image, Path(path), progress)
        return StoredPrediction(
            Path(path),
            stored.shape,
            stored.objects,
            self.bundle.spec.task.name,
            stored.seconds,
            self.identity,
            join_warnings(image.warnings, stored.warnings),
        )

    def fits(self, image: Image) -> bool:
        """Whether an image's scaled pixels and its answer fit into the memory budget, by what its header says.

        What is resampled to the model's pixel size counts as it comes and as the network sees it.

        Raises
        ------
        ImageError
            The image cannot be resampled: see :func:`cytoray_analysis.model_input.resampled`.
        """
        output = self.task.output
        size = resampled(image, self.bundle.spec.input)
        answered = math.prod(image.size(axis) for axis in self.bundle.spec.input.spatial_axes)
        channels = output.channels if output.truth == "image" else 1
        pixels = math.prod(image.shape) + answered * channels
        if size.zoom is not None:
            pixels += math.prod(size.shape) * (image.size("C") + channels)
        return 4 * pixels <= self.memory_budget

    def network_pixels(self, image: Image) -> int:
        """Return how many pixels of an image the network sees, channels not counted, by what its header says.

        Raises
        ------
        ImageError
            As :meth:`fits` does.
        """
        expected = self.bundle.spec.input
        own = math.prod(image.size(axis) for axis in image.axes if axis != "C")
        if expected.window is not None or "T" in expected.axes or resampled(image, expected).zoom is None:
            return own
        return max(own, math.prod(resampled(image, expected).shape))

    def blocks(self, image: Image, core: tuple[int, ...] | None = None) -> Blocks:
        """Cut an image larger than memory into blocks, which any number of processes may answer.

        Parameters
        ----------
        core
            Size of the blocks as another process had it; by default as large as the memory budget allows.

        Raises
        ------
        ImageError
            The image cannot be used, or its pixel size differs from the model's.
        RequestError
            The model's answers are no images.
        """
        return self._pixels().blocks(image, core)

    def predict_block(self, blocks: Blocks, index: int) -> BlockAnswer:
        """Answer for one of the blocks of :meth:`blocks`."""
        return self._pixels().answer_block(blocks, index)

    def outputs(self, image: Image, objects: Any = None) -> Any:
        """Return the network's outputs for an image before decoding, as the task's ``decode`` takes them."""
        return self.inference.outputs(image, objects)

    def warm_up(self) -> None:
        """Predict something blank, so that the first real image finds everything compiled and allocated."""
        self.inference.warm_up()

    def _pixels(self) -> PixelInference:
        if not isinstance(self.inference, PixelInference):
            raise RequestError(
                f"expected a model that answers for every pixel, got {self.bundle.spec.name}, which answers for every "
                f"{self.task.output.per}",
                field="model",
                hint="only images of pixels are cut into blocks",
            )
        return self.inference

    def _prediction(self, image: Image, outcome: Outcome) -> Prediction:
        return Prediction(
            outcome.answer,
            self.task.output.truth,
            outcome.objects,
            self.bundle.spec.task.name,
            outcome.seconds,
            self.identity,
            outcome.confidence,
            join_warnings(image.warnings, outcome.warnings),
            "" if self.task.output.per == "link" else self.bundle.spec.input.spatial_axes,
        )
