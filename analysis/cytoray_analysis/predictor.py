"""The only inference path: evaluation, endpoints and bulk jobs all call :class:`Predictor`.

A large image is predicted in tiles, and decoded in blocks, whose size follows from a memory budget. Tiles
carry a halo as wide as the network sees and start where the network's cells start, blocks carry a margin as
wide as decoding sees, and objects are named by their place in the whole image: the answer does not depend on
how the image was cut.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.devices import Precision, choose_device, choose_precision
from cytoray_analysis.errors import CytorayError
from cytoray_analysis.images import Image, create_labels_zarr, image_from_array
from cytoray_analysis.images.resample import resample_labels
from cytoray_analysis.model_input import NetworkImage, prepare
from cytoray_analysis.networks import dense, fuse_batch_norm
from cytoray_analysis.numbering import Numbering
from cytoray_analysis.tasks import Block, Decoded, get_task
from cytoray_analysis.tiles import Region, core_for_budget, extent, tile_region, whole, within

MEMORY_BUDGET = 2**30  # bytes; with the process itself, about two gigabytes
ZARR_CHUNK = 1024  # pixels along Y and X


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
        What the task decodes to; for segmentation the label image, spatial axes, int32, objects numbered 1 to
        n.
    task
        Name of the task.
    seconds
        Time spent per stage: ``read`` (decoding and scaling the image), ``network``, ``decode``.
    model
        Which model gave it.
    """

    answer: NDArray[Any]
    task: str
    seconds: dict[str, float]
    model: ModelIdentity

    @property
    def objects(self) -> int:
        """Number of objects."""
        return int(self.answer.max(initial=0))


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
    """

    path: Path
    shape: tuple[int, ...]
    objects: int
    task: str
    seconds: dict[str, float]
    model: ModelIdentity


class Predictor:
    """Answers for images, from one bundle.

    Parameters
    ----------
    bundle
        The model.
    device
        Such as ``"cpu"`` or ``"cuda:0"``; an accelerator when there is one by default.
    precision
        ``"fp32"`` or ``"bf16"``; bf16 by default where the device computes it natively.
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
        self.task = get_task(bundle.spec.task.name, bundle.spec.task.arguments)
        self.device = choose_device(device)
        self.precision: Precision = precision or choose_precision(self.device)
        self.memory_budget = memory_budget
        self.identity = ModelIdentity(bundle.spec.name, version, bundle.digest)
        network = fuse_batch_norm(bundle.network())
        self._type = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self._format = torch.channels_last_3d if len(bundle.spec.input.axes) == 4 else torch.channels_last
        network = network.to(device=self.device, dtype=self._type)
        self._network = network.to(memory_format=self._format)  # type: ignore[call-overload]
        self._shape = dense(network)
        self._parameters = self.task.output.defaults() | bundle.spec.decode
        margin = self.task.output.margin(self._parameters)
        self._margin = -(-margin // self._shape.stride) * self._shape.stride

    def predict(self, image: Image) -> Prediction:
        """Answer for one image that fits into memory.

        Raises
        ------
        ImageError
            The image cannot be used: see :func:`cytoray_analysis.model_input.prepare`.
        """
        start = time.perf_counter()
        source = prepare(image, self.bundle.spec.input)
        seconds = {"read": time.perf_counter() - start, "network": 0.0, "decode": 0.0}
        return self._answer(source, seconds)

    def predict_batch(self, images: Sequence[Image]) -> list[Prediction | CytorayError]:
        """Answer for several images; those of one shape go through the network together.

        Returns
        -------
        list
            One entry per image, in order: its answer, or the error that this image alone caused.
        """
        results: list[Prediction | CytorayError | None] = [None] * len(images)
        sources: dict[tuple[int, ...], list[tuple[int, NetworkImage, float]]] = {}
        for index, image in enumerate(images):
            start = time.perf_counter()
            try:
                source = prepare(image, self.bundle.spec.input)
                sources.setdefault(source.shape, []).append((index, source, time.perf_counter() - start))
            except CytorayError as error:
                results[index] = error
        for shape, members in sources.items():
            together = max(1, self._tile_pixels() // max(int(np.prod(shape)), 1))
            for first in range(0, len(members), together):
                self._answer_together(members[first : first + together], results)
        return [result for result in results if result is not None]

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
        """
        start = time.perf_counter()
        source = prepare(image, self.bundle.spec.input, in_memory=False)
        seconds = {"read": time.perf_counter() - start, "network": 0.0, "decode": 0.0, "write": 0.0}
        chunks = tuple(
            min(length, ZARR_CHUNK if axis >= len(source.shape) - 2 else 16) for axis, length in enumerate(source.shape)
        )
        store = create_labels_zarr(path, source.shape, chunks=chunks, pixel_size=image.pixel_size)
        count = self._fill(source, store, seconds, progress)
        return StoredPrediction(Path(path), source.shape, count, self.bundle.spec.task.name, seconds, self.identity)

    def outputs(self, image: Image) -> NDArray[np.float32]:
        """Return the network's dense outputs for an image, (channels, spatial…) float32, before decoding."""
        source = prepare(image, self.bundle.spec.input)
        return self._outputs(source, whole(source.shape), {"read": 0.0, "network": 0.0})

    def warm_up(self, shape: tuple[int, ...] | None = None) -> None:
        """Predict a blank image, so that the first real one finds everything compiled and allocated."""
        spatial = shape or (self._shape.stride * 8,) * (len(self.bundle.spec.input.axes) - 1)
        pixels = np.zeros((len(self.bundle.spec.input.channels), *spatial), np.uint8)
        self.predict(image_from_array(pixels, self.bundle.spec.input.axes, source="warm-up"))

    def tile_core(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the size of the tiles, without their halo, that an image of this spatial shape is predicted in."""
        return core_for_budget(shape, self._shape.halo, self._tile_pixels(), stride=self._shape.stride)

    def _tile_pixels(self) -> int:
        return max(self.memory_budget // self._shape.bytes_per_pixel(self._type.itemsize), 1)

    def _block_pixels(self) -> int:
        """Pixels whose dense outputs (float32) and decoding take at most a third of the budget."""
        return max(self.memory_budget // 3 // (self.task.output.channels * 4 + 24), 1)

    def _answer(self, source: NetworkImage, seconds: dict[str, float]) -> Prediction:
        if int(np.prod(source.shape)) <= self._block_pixels():
            answer = self._decode(self._outputs(source, whole(source.shape), seconds), seconds).values
        else:
            answer = np.zeros(source.shape, np.int32)
            self._fill(source, answer, seconds, None)
        return self._prediction(source, answer, seconds)

    def _prediction(self, source: NetworkImage, answer: NDArray[Any], seconds: dict[str, float]) -> Prediction:
        if source.shape != source.original_shape:
            answer = resample_labels(answer, source.original_shape)
        return Prediction(answer, self.bundle.spec.task.name, seconds, self.identity)

    def _answer_together(
        self,
        members: Sequence[tuple[int, NetworkImage, float]],
        results: list[Prediction | CytorayError | None],
    ) -> None:
        if len(members) == 1 or int(np.prod(members[0][1].shape)) > self._tile_pixels():
            for index, source, spent in members:
                results[index] = self._answer(source, {"read": spent, "network": 0.0, "decode": 0.0})
            return
        start = time.perf_counter()
        pixels = np.stack([source.read(whole(source.shape)) for _, source, _ in members])
        read = (time.perf_counter() - start) / len(members)
        start = time.perf_counter()
        outputs = self._forward(pixels)
        network = (time.perf_counter() - start) / len(members)
        for (index, source, spent), output in zip(members, outputs, strict=True):
            seconds = {"read": spent + read, "network": network, "decode": 0.0}
            results[index] = self._prediction(source, self._decode(output, seconds).values, seconds)

    def _fill(
        self,
        source: NetworkImage,
        target: Any,
        seconds: dict[str, float],
        progress: Callable[[int, int], None] | None,
    ) -> int:
        """Write the answer into `target`, block by block, and return the number of objects."""
        # A block and both its borders fit into one tile, so that nothing but borders is computed twice.
        pixels = min(self._block_pixels(), self._tile_pixels())
        core = core_for_budget(source.shape, self._margin + self._shape.halo, pixels, stride=self._shape.stride)
        blocks = list(tile_region(whole(source.shape), source.shape, core, self._margin, stride=self._shape.stride))
        numbering = Numbering()
        for done, block in enumerate(blocks):
            outputs = self._outputs(source, block.outer, seconds)
            place = Block(tuple(part.start for part in block.outer), source.shape)
            decoded = self._decode(outputs, seconds, place)
            del outputs
            start = time.perf_counter()
            target[block.core] = numbering.number(decoded.values[block.inner], decoded.identities)
            seconds["write"] = seconds.get("write", 0.0) + time.perf_counter() - start
            if progress:
                progress(done + 1, len(blocks))
        start = time.perf_counter()
        ranks = numbering.ranks()
        if ranks is not None:
            for block in blocks:  # objects were numbered as they were met; now in order of their place
                target[block.core] = ranks[target[block.core]]
        seconds["write"] = seconds.get("write", 0.0) + time.perf_counter() - start
        return numbering.count

    def _decode(self, outputs: NDArray[np.float32], seconds: dict[str, float], block: Block | None = None) -> Decoded:
        start = time.perf_counter()
        decoded = self.task.decode(outputs, self._parameters, block)
        seconds["decode"] += time.perf_counter() - start
        return decoded

    def _outputs(self, source: NetworkImage, region: Region, seconds: dict[str, float]) -> NDArray[np.float32]:
        """Run the network over a region, tile by tile."""
        halo, stride = self._shape.halo, self._shape.stride
        core = self.tile_core(extent(region))
        outputs: NDArray[np.float32] | None = None
        for tile in tile_region(region, source.shape, core, halo, stride=stride):
            start = time.perf_counter()
            # One tile that is the whole image needs no halo, and no copy.
            alone = tile.core == whole(source.shape)
            pixels = source.read(tile.outer)
            read = time.perf_counter()
            answer: NDArray[np.float32] = self._forward(pixels[None])[0]
            seconds["read"] += read - start
            seconds["network"] += time.perf_counter() - read
            if alone:
                return answer
            if outputs is None:
                outputs = np.empty((len(answer), *extent(region)), np.float32)
            outputs[(slice(None), *within(tile.core, region))] = answer[(slice(None), *tile.inner)]
        if outputs is None:
            raise ValueError(f"region {region} holds no pixel")
        return outputs

    def _forward(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map scaled pixels (B, C, spatial…) to outputs (B, K, spatial…), padding to the stride by reflection."""
        shape = pixels.shape[2:]
        stride = self._shape.stride
        missing = [-length % stride for length in shape]
        if any(missing):
            pixels = np.pad(pixels, ((0, 0), (0, 0), *((0, extra) for extra in missing)), mode="reflect")
        with torch.inference_mode():
            tensor = torch.from_numpy(pixels).to(device=self.device, dtype=self._type)
            answer: torch.Tensor = self._network(tensor.contiguous(memory_format=self._format))
            kept = answer[(slice(None), slice(None), *(slice(0, length) for length in shape))]
            result: NDArray[np.float32] = kept.float().contiguous().cpu().numpy()
        return result
