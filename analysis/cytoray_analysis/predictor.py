"""The only inference path: evaluation, endpoints and bulk jobs all call :class:`Predictor`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cytoray_analysis.bundle import Model
from cytoray_analysis.devices import MEMORY_BUDGET, Precision
from cytoray_analysis.errors import CytorayError, RequestError
from cytoray_analysis.images import Image
from cytoray_analysis.inference import INFERENCE, ModelIdentity, NetworkRunner, Prediction
from cytoray_analysis.inference.blocks import Blocks
from cytoray_analysis.inference.pixels import PixelInference
from cytoray_analysis.model_input import resampled
from cytoray_analysis.tasks import Decoded, get_task

__all__ = ["ModelIdentity", "Prediction", "Predictor"]


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
        Bytes that one prediction may use in addition to the image and its answer; determines the tile size.
    threads
        CPU threads of this process; as PyTorch finds them by default.
    name, version
        Of the model in the registry, for the answers to carry; by default the bundle's own name.
    """

    def __init__(
        self,
        bundle: Model,
        *,
        device: str | None = None,
        precision: Precision | None = None,
        memory_budget: int = MEMORY_BUDGET,
        threads: int | None = None,
        name: str | None = None,
        version: str | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.bundle = bundle
        self.memory_budget = memory_budget
        self.task = get_task(bundle.spec.task.name, bundle.spec.task.arguments)
        self.identity = ModelIdentity(name or bundle.spec.name, version, bundle.digest)
        kind = INFERENCE[self.task.output.per]
        self.runner = NetworkRunner(bundle, device, precision or kind.precision)
        self.parameters = self.task.output.completed(bundle.spec.decode)
        self.inference = kind(bundle.spec, self.task, self.runner, self.parameters, memory_budget, self.identity)

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
            The model accepts no objects, or not of this kind.
        """
        return self.inference.answer(image, objects)

    def predict_batch(
        self, images: Sequence[Image], objects: Sequence[Any] | None = None
    ) -> list[Prediction | CytorayError]:
        """Answer for several images; those of one shape go through the network together.

        Returns
        -------
        list
            One entry per image, in order: its answer, or the error of only this image.
        """
        return self.inference.answer_batch(images, objects or [None] * len(images))

    def predict_to_zarr(
        self, image: Image, path: str | Path, *, progress: Callable[[int, int], None] | None = None
    ) -> Prediction:
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
        return self.inference.store(image, Path(path), progress)

    def fits(self, image: Image) -> bool:
        """Whether an image's scaled pixels and its answer fit into the memory budget, according to its header.

        What is resampled to the model's pixel size counts as it comes and as the network sees it.

        Raises
        ------
        ImageError
            The image cannot be resampled: see :func:`cytoray_analysis.model_input.resampled`.
        """
        size = resampled(image, self.bundle.spec.input)
        answered = math.prod(image.size(axis) for axis in self.bundle.spec.input.spatial_axes)
        channels = math.prod(self.inference.channels) if isinstance(self.inference, PixelInference) else 1
        pixels = math.prod(image.shape) + answered * channels
        if size.zoom is not None:
            pixels += math.prod(size.shape) * (image.size("C") + channels)
        return 4 * pixels <= self.memory_budget

    def network_pixels(self, image: Image) -> int:
        """Return the number of pixels of the network input of an image, without channels, according to its header.

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

    def predict_block(self, blocks: Blocks, index: int) -> Decoded:
        """Answer for one of the blocks of :meth:`blocks`: its core, with its own object numbers, 1 to n."""
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
                hint="only images for such models are divided into blocks",
            )
        return self.inference
